"""Mistakes of the user: one message with the full key or path, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

import train

WINDOWS_PATH = r"\\server\Jürgen Müller\a,b=(1).csv"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert train.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("train.py: ")
    assert not list(Path().iterdir())
    return lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["task=TM20Ful"], ["unknown task=TM20Ful", "did you mean TM20Full", "TM20LidarProgress"]),
        (["train=TM20FullTD3"], ["unknown train=TM20FullTD3", "TM20FullSAC", "more, see python train.py --help"]),
        (["train=TM20fulldroq"], ["unknown train=TM20fulldroq", "did you mean TM20FullDroQ"]),
        (["sed=1"], ["unknown key sed", "did you mean seed"]),
        (["task.tracc=short"], ["unknown key task.tracc", "did you mean task.track?"]),
        (["task.reward.MIN_STEP=3"], ["unknown key task.reward.MIN_STEP", "did you mean task.reward.MIN_STEPS?"]),
        (
            ["train.params.config.batch_sizee=3"],
            ["unknown key train.params.config.batch_sizee", "train.params.config has: batch_size"],
        ),
        (
            ["train=TM20FullPPO", "train.params.config.horizon=3"],
            ["unknown key train.params.config.horizon", "horizon_length"],
        ),
        (["+task.foo=1"], ["unknown key task.foo"]),
        (["+foo=1"], ["unknown key foo"]),
        (["seed=abc"], ["seed must be an integer", "'abc'"]),
        (["seed=-1"], ["seed must be >= 0", "repeatable", "got -1"]),
        (["profil=true"], ["unknown key profil", "profile"]),
        (["task=TM20Lidar", "task.game=sim", "train=TM20LidarPPO", "profile=true"], ["profile must be false with"]),
        (
            ["task=TM20Lidar", "task.game=sim", "device=cpu", "train.params.config.update_mode=graph"],
            ["train.params.config.update_mode must be auto or eager here, got graph", "CUDA graphs need a GPU"],
        ),
        (
            ["task=TM20Lidar", "task.game=sim", "device=cpu", "train.params.config.replay_device=cuda"],
            ["train.params.config.replay_device must be auto or cpu here, got cuda", "device=cuda, and device is cpu"],
        ),
        (["train.params.config.update_mode=fast"], ["train.params.config.update_mode", "fast", "eager"]),
        (["max_updates=0"], ["max_updates must be null or >= 1, got 0"]),
        (["task=TM20Lidar", "task.game=sim", "train=TM20LidarPPO", "max_updates=9"], ["max_updates must be null with"]),
        (
            ["task=TM20Lidar", "task.game=sim", "max_env_steps=100", "max_updates=401"],
            ["max_updates=401 would never be reached", "400 updates or fewer", "raise max_env_steps to at least 101"],
        ),
        (["test=True"], ["unknown key test; here: --play --checkpoint FILE"]),
        (["+test=True"], ["unknown key test; here: --play --checkpoint FILE"]),
        (["num_envs=512"], ["unknown key num_envs", "num_workers", "train.params.config.num_actors"]),
        (["task.env.numEnvs=512"], ["unknown key task.env", "num_workers"]),
        (["max_iterations=500"], ["unknown key max_iterations", "max_env_steps", "max_updates"]),
        (["train=TM20LidarPPO", "train.params.config.max_epochs=5"], ["unknown key", "max_epochs", "max_env_steps"]),
        (["wandb_activate=True"], ["unknown key wandb_activate; here: wandb.enabled=true"]),
        (["wandb_project=mine"], ["unknown key wandb_project; here: wandb.project"]),
        (["multi_gpu=True"], ["unknown key multi_gpu", "device=cuda:N"]),
        (["sim_device=cpu"], ["unknown key sim_device", "device is where the learner computes"]),
        (["rl_device=cuda:0"], ["unknown key rl_device", "inference_device"]),
        (["capture_video=True"], ["unknown key capture_video", "play.video"]),
        (["--test"], ["unknown flag --test; here: --play --checkpoint FILE"]),
        (["--num_envs=512"], ["unknown flag --num_envs; here: num_workers"]),
        (["--wandb-project-name", "x"], ["unknown flag --wandb-project-name; here: wandb.project"]),
        (["--record-reward"], ["unknown flag --record-reward; here: --record"]),
        (["--headles"], ["unknown flag --headles (did you mean --headless?)"]),
        (["task.rtgym.act_buf_len=two"], ["task.rtgym.act_buf_len must be an integer"]),
        (["task.rtgym.act_buf_len=0"], ["task.rtgym.act_buf_len must be >= 1, got 0"]),
        (["task.game=real"], ["task.game must be one of auto, sim, live"]),
        (["task.game=live", "task.clock=virtual"], ["task.clock must be 'auto' or 'wall'", "live", "virtual"]),
        (["task.clock=wall", "synchronous=true"], ["synchronous must be false with task.clock=wall", "stall"]),
        (["task.game=live", "task.live.port=70000"], ["task.live.port must be between 1 and 65535, got 70000"]),
        (["record.name=a/b"], ["record.name must be a folder name, got 'a/b'"]),
        (["train.params.config.batch_size=0"], ["train.params.config.batch_size must be >= 1, got 0"]),
        (["train.params.config.gamma=2"], ["train.params.config.gamma must be in (0, 1], got 2.0"]),
        (
            ["train.params.network.encoder=my_encoder"],
            ["train.params.network.encoder must be one of", "'compact_cnn'", "plugins=[...]", "got 'my_encoder'"],
        ),
        (["train.params.network.encoder=null"], ["train.params.network.encoder must be a text"]),
        (
            ["train=TM20FullPPO", "train.params.network.encoder=mine"],
            ["train.params.network.encoder must be one of ['mlp'"],
        ),
        (["train.params.network.hidden=[]"], ["train.params.network.hidden must be", "got []"]),
        (
            ["train=TM20FullDroQ", "train.params.network.dropout=0"],
            ["train.params.network.dropout must be above 0 with DroQ"],
        ),
        (["train.params.config.optimizer_actor=adma"], ["optimizer_actor must be one of adam, adamw, sgd, rmsprop"]),
        (["train=TM20LidarPPO", "task=TM20Lidar", "train.params.config.tau=0"], ["train.params.config.tau must be in"]),
        (["train.params.algo.name=foo"], ["train.params.algo.name must be one of remote_sac, remote_redq", "'foo'"]),
        (["max_env_steps=many"], ["max_env_steps must be 'auto' or an integer >= 1, got 'many'"]),
        (["checkpoint_mode=resum"], ["checkpoint_mode must be one of resume, weights, replay"]),
        (["play.rules=soccer"], ["play.rules must be one of normal, league"]),
        (["play.episodes=0"], ["play.episodes must be >= 1, got 0"]),
        (["device=gpu"], ["device must be auto, cpu or cuda:N, got 'gpu'"]),
        (["device=cuda:99"], ["device=cuda:99", "CUDA devices"]),
        (["experiment=a/b"], ["experiment must be", "'a/b'"]),
        (["observers=[nobody]"], ["observers: unknown 'nobody'"]),
        (["plugins=[nowhere.py]"], ["nowhere.py", "is not a Python file"]),
        (["task"], ["cannot read the argument 'task'", "KEY=VALUE"]),
        (["seed=[1"], ["cannot read the argument seed=[1"]),
        (["experiment=Jürgen (2)"], ["cannot read the argument", "quotes within quotes: \"experiment='Jürgen (2)'\""]),
        (["--multirun", "--cfg", "job"], ["Only one of --run, --multirun, --cfg"]),
        (["--worker"], ["--worker needs remote.address"]),
        (["--unknown"], ["unknown flag --unknown"]),
        (["--play"], ["--play needs --checkpoint FILE"]),
        (["--play", "--checkpoint", "nowhere/best.pth"], ["nowhere/best.pth does not exist"]),
        (["checkpoint=nowhere.pth"], ["nowhere.pth does not exist"]),
        ([f"checkpoint={WINDOWS_PATH}"], [f"{WINDOWS_PATH} does not exist"]),
        ([f"++checkpoint={WINDOWS_PATH}"], [f"{WINDOWS_PATH} does not exist"]),
        (["--play", "--checkpoint", WINDOWS_PATH], [f"{WINDOWS_PATH} does not exist"]),
        (["task.game=sim", f"task.track={WINDOWS_PATH}"], [f"{WINDOWS_PATH} does not exist"]),
        (["task.game=sim", f"task.reward.path={WINDOWS_PATH}"], [f"{WINDOWS_PATH} does not exist"]),
        (["remote.listen=0.0.0.0:0", f"remote.credentials={WINDOWS_PATH}"], [f"no folder {WINDOWS_PATH};"]),
        (["--multirun", f"checkpoint='{WINDOWS_PATH}'"], [f"{WINDOWS_PATH} does not exist"]),
        ([f"plugins={WINDOWS_PATH}"], [f"plugins: {WINDOWS_PATH} is not a Python file"]),
        (["task.game=sim", "task.track=nowhere"], ["nowhere", "short"]),
        (["task.game=sim", "task.track=nowhere.csv"], ["nowhere.csv"]),
        (["task.game=sim", "task.reward.path=nowhere.npy"], ["nowhere.npy"]),
        (["task.img_width=8"], ["task.img_width", "8x64"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and "=" in value[0] else None,
)
def test_a_wrong_argument_is_refused_with_one_message(
    words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, *words)
    for text in expected:
        assert text in message


@pytest.mark.parametrize(
    ("task", "train_file", "fitting"),
    [
        ("TM20Full", "TM20LidarSAC", ["train=TM20FullPPO", "train=TM20FullSAC", "train=TM20FullREDQ"]),
        ("TM20Lidar", "TM20FullSAC", ["train=TM20LidarPPO", "train=TM20LidarSAC", "train=TM20LidarDroQ"]),
        ("TM20LidarProgress", "TM20FullPPO", ["train=TM20LidarProgressPPO", "train=TM20LidarProgressCrossQ"]),
    ],
)
def test_a_training_that_does_not_fit_its_task_is_refused(
    task: str, train_file: str, fitting: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, f"task={task}", f"train={train_file}")
    assert f"train={train_file} does not fit task={task}" in message
    named = message.partition("made for it: ")[2].split(", ")
    assert set(fitting) <= set(named)
    assert all(name.startswith(f"train={task}") for name in named)


def test_a_damaged_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path.parent / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04 not a checkpoint")
    assert f"checkpoint {damaged}" in refused(capsys, "--play", "--checkpoint", str(damaged))


def test_a_damaged_track_is_refused_with_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track = tmp_path.parent / "broken.csv"
    track.write_text("0,0\n1,0\n2,nan\n")
    assert str(track) in refused(capsys, "task.game=sim", f"task.track={track}")


def test_a_fault_in_a_users_yaml_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path.parent / "own_cfg"
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train" / "Mine.yaml").write_text("defaults: [SAC, _self_]\nparams: {config: {batchsize: 3}}\n")
    message = refused(capsys, f"--config-dir={folder}", "train=Mine")
    assert "train/Mine.yaml" in message
    assert "unknown key train.params.config.batchsize" in message


def test_a_fault_of_the_program_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(train, "run", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        train.main(["seed=1"])


def test_an_interrupt_ends_with_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert train.main([]) == 130
    assert capsys.readouterr().err == "train.py: interrupted\n"


def test_hydras_full_error_shows_where_a_refusal_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert train.main(["seed=-1"]) == 2
    assert "Traceback" in capsys.readouterr().err
