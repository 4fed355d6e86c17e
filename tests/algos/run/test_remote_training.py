"""Training on samples of remote workers, resumed and killed: the stored replay has each of their segments once."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.config.schema import typed
from algos.faces.runner_params import worker_policy
from algos.replay.storage import ReplayStorage
from algos.run.checkpoint import load_checkpoint
from tasks import registry
from tasks.config import TaskConfig
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.remote.access.credentials import make_credentials
from tests.algos.faces.test_agent import read_scalars
from tests.algos.fakes import SPEC
from tests.algos.runs import make_agent, make_params
from tests.tasks.remote.learner.test_vecenv_remote import RemoteWorker

ROOT = Path(__file__).parents[3]
TOY = {"function": "tests.algos.fakes:make_toy_env", "kwargs": {}}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    make_credentials(tmp_path / "credentials", [], ["alice"])
    return tmp_path / "credentials"


class Stored:
    """Collects the segments of a stored replay."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def start_at(self, row: int, received: Mapping[str, int], streams: Any) -> None:
        assert row == 0, "rows are gone"

    def note_gap(self, received: Mapping[str, int], streams: Any) -> None:
        raise AssertionError("rows are lost")

    def append(self, segment: Segment) -> bool:
        self.segments.append(segment)
        return True


def stored(directory: Path, spec: ObservationSpec) -> list[Segment]:
    memory = Stored()
    with ReplayStorage(directory, spec, 1_000_000, read_only=True) as storage:
        storage.load(memory)
    return memory.segments


def assert_each_once(segments: list[Segment]) -> None:
    for worker in {segment.worker for segment in segments}:
        numbers = [segment.seq for segment in segments if segment.worker == worker]
        assert numbers == list(range(1, len(numbers) + 1))


def with_listener(params: dict[str, Any], credentials: Path) -> dict[str, Any]:
    """An agent with a listener and no local workers."""
    remote = {"listen": "127.0.0.1:0", "credentials": str(credentials / "learner")}
    params["config"]["env_config"] |= {"remote": remote, "num_workers": 0}
    return params


@contextmanager
def joined(agent: Any, folder: Path, credentials: Path) -> Iterator[RemoteWorker]:
    """A remote worker of this agent."""
    policy = agent.config["env_config"]["policy"]
    with RemoteWorker(lambda: agent.vec_env.remote_address, folder, credentials, TOY, policy) as worker:
        yield worker


def test_training_resumes_with_a_worker_elsewhere_and_has_each_segment_once(tmp_path: Path, credentials: Path) -> None:
    torch.set_num_threads(1)
    changes: dict[str, Any] = {"synchronous": False, "evaluation_interval": 150}
    params = with_listener(make_params(tmp_path, max_env_steps=400, **changes), credentials)
    agent = make_agent(params)
    with joined(agent, tmp_path, credentials):
        agent.train()
    last = tmp_path / "run" / "nn" / "last.pth"
    received = load_checkpoint(last).replay["position"]["received"]
    (identity,) = received
    assert identity.startswith("alice.")
    assert read_scalars(tmp_path / "run")["gateway/remote_workers"][-1][1] == 1
    assert (tmp_path / "run" / "nn" / "best.pth").is_file()

    params = with_listener(make_params(tmp_path, max_env_steps=800, **changes), credentials)
    agent = make_agent(params)
    agent.restore(str(last))
    assert agent.frame >= 400
    with joined(agent, tmp_path, credentials):
        agent.train()
    assert agent.frame >= 800
    segments = stored(tmp_path / "run" / "replay", SPEC)
    assert_each_once(segments)
    assert {segment.worker for segment in segments} == {identity}
    # Each start of the worker has its own streams.
    assert len({segment.stream // 1000 for segment in segments}) == 2


# --- the whole program ---

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LIDAR = ["task=TM20Lidar", "train=TM20LidarSAC", "task.track=short", "task.game=sim"]


@contextmanager
def learner_process(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def line_with(learner: subprocess.Popen[str], text: str) -> str:
    """The newest line of a program's log that contains this text."""
    assert learner.stderr is not None
    said = []
    for line in learner.stderr:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


@pytest.mark.slow
def test_the_command_that_is_shown_starts_a_worker(tmp_path: Path, credentials: Path) -> None:
    words = ["max_env_steps=1500", "num_workers=0", "link.segment_rows=16", "train.params.network.hidden=[64,64]"]
    remote = [f"remote.credentials={credentials / 'learner'}", "remote.listen=127.0.0.1:0"]
    with learner_process(tmp_path, *LIDAR, *words, *remote, "experiment=remote") as learner:
        command = line_with(learner, "--worker")
        assert "link.segment_rows=16" in command
        typed = command.replace("FOLDER", str(credentials / "workers" / "alice"))
        arguments = shlex.split(typed.replace("python train.py", f"{sys.executable} {ROOT / 'train.py'}"))
        with subprocess.Popen(arguments, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as worker:
            assert learner.stderr is not None
            said = learner.stderr.read()
            assert learner.wait(10) == 0, said
            worker.send_signal(signal.SIGINT)
            told = worker.communicate(timeout=20)[1]
            assert worker.returncode == 0, told
    (run,) = (tmp_path / "runs").glob("remote_*")
    (identity,) = load_checkpoint(run / "nn" / "last.pth").replay["position"]["received"]
    assert identity.startswith("alice.")


def lidar_policy() -> dict[str, Any]:
    from tests.algos.config.test_worker_words import composed

    config, _ = composed(*LIDAR)
    run = typed(config, TaskConfig)
    return worker_policy(run.train, registry.observation_spec("TM20Lidar", run.task), "cpu")


@pytest.mark.slow
def test_a_learner_that_is_killed_goes_on_from_its_checkpoint_and_misses_nothing(
    tmp_path: Path, credentials: Path
) -> None:
    remote = [f"remote.credentials={credentials / 'learner'}", "num_workers=0"]
    more = ["max_env_steps=2500", "train.params.config.checkpoint_interval=300", "device=cpu", "experiment=remote"]
    env = {"task": {"name": "TM20Lidar", "track": "short", "game": "sim", "clock": "virtual"}}
    with learner_process(tmp_path, *LIDAR, *remote, *more, "remote.listen=127.0.0.1:0") as learner:
        address = line_with(learner, "--worker").partition("remote.address=")[2].split()[0]
        with RemoteWorker(address, tmp_path, credentials, env, lidar_policy()) as worker:
            deadline = time.monotonic() + 90
            while not (checkpoints := list(tmp_path.glob("runs/remote_*/nn/step_*.pth"))):
                assert time.monotonic() < deadline, "no checkpoint"
                time.sleep(0.05)
            learner.send_signal(signal.SIGKILL)
            learner.wait(10)
            run = checkpoints[0].parents[1]
            words = [*remote, f"remote.listen={address}", f"checkpoint={run / 'nn' / 'last.pth'}"]
            with learner_process(tmp_path, *words) as again:
                assert again.stderr is not None
                said = again.stderr.read()
                assert again.wait(10) == 0, said
            assert worker.code is None, "the worker gave up"
    assert list((tmp_path / "runs").iterdir()) == [run]
    assert load_checkpoint(run / "nn" / "last.pth").counters["env_steps"] >= 2500
    segments = stored(run / "replay", registry.observation_spec("TM20Lidar", registry.default_config("TM20Lidar")))
    assert_each_once(segments)
    assert len({segment.worker for segment in segments}) == 1
    assert sum(segment.num_env_steps for segment in segments) >= 2500
