"""Workers on real Ray clusters, one of the run's own and one with nodes that die; needs the extra ``cluster``."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.experience.samples import Segment
from tasks.remote.launch.launch import Place, WorkerFailed, WorkerRefused
from tasks.remote.launch.ray_launch import RayLauncher
from tasks.remote.learner.vecenv import RemoteVecEnv
from tests.tasks.remote.learner.test_vecenv import assert_whole_and_in_order, make, num_of, receive
from tests.tasks.remote.raw_worker import wait_report, wait_until
from tests.tasks.remote.ray_nodes import (
    RayCluster,
    descendants,
    environment_of,
    listening_addresses,
    own_address,
)

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install -e '.[cluster]'", allow_module_level=True)

pytestmark = pytest.mark.timeout(240)  # a cluster takes 10 s to start, a lost node 10 s to be given up

ROOT = Path(__file__).resolve().parents[4]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
needs_address = pytest.mark.skipif(own_address() == "127.0.0.1", reason="this machine has no address of its own")


@contextmanager
def started(num_workers: int = 1, ray: dict[str, Any] | None = None, **kwargs: Any) -> Iterator[RemoteVecEnv]:
    with make(num_workers, num_workers=num_workers, launcher="ray", ray=ray or {}, **kwargs) as vecenv:
        vecenv.start()
        yield vecenv


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """A cluster that lets this process in."""
    with RayCluster() as running:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN", running.token)
        yield running


def ray_process_of(vecenv: RemoteVecEnv) -> int:
    """The process that talks to Ray."""
    assert vecenv._pool is not None
    launcher = vecenv._pool.launcher
    assert isinstance(launcher, RayLauncher)
    assert launcher._process is not None
    return launcher._process._process.pid


def receive_until_both(vecenv: RemoteVecEnv, worker: str, other: str, count: int = 5) -> list[Segment]:
    segments: list[Segment] = []
    while min(num_of(segments, worker), num_of(segments, other)) < count:
        segments += receive(vecenv, 1, timeout_s=90.0)
    return segments


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- a cluster of the run's own ---


def test_workers_on_this_machine_need_no_other_setting() -> None:
    with started(2, evaluator=True) as vecenv:
        segments = receive_until_both(vecenv, "worker-0", "worker-1", 20)
        assert_whole_and_in_order(segments)
        vecenv.link.request_evaluation({"value": np.array([0.5], np.float32)}, 3, [7, 8])
        report = wait_report(vecenv.link)
        assert (report.weights_version, len(report.episodes)) == (3, 2)
        assert len(vecenv.process_ids()) == 3
        everything = [ray_process_of(vecenv), *descendants(ray_process_of(vecenv))]
        assert len(everything) > 6
        worker = environment_of(vecenv.process_ids()[Place("worker", 0)])
        # Nobody on another machine can so much as connect.
        assert listening_addresses(everything) <= LOOPBACK
        assert worker["OMP_NUM_THREADS"] == "1"
        assert "RAY_AUTH_TOKEN" not in worker
        assert not [path for path in worker["PYTHONPATH"].split(os.pathsep) if f"{os.sep}ray{os.sep}" in path]
    wait_until(lambda: not any(is_alive(pid) for pid in everything))


def test_a_killed_worker_comes_back_under_a_new_name() -> None:
    with started() as vecenv:
        segments = receive(vecenv, 3, timeout_s=60.0)
        os.kill(vecenv.process_ids()[Place("worker", 0)], signal.SIGKILL)
        while segments[-1].worker == segments[0].worker:
            segments += receive(vecenv, 1, timeout_s=60.0)
        assert_whole_and_in_order(segments)
        assert vecenv.statistics()["gateway/restarts"] == 1


def test_an_exception_in_an_environment_reaches_the_user_with_its_traceback() -> None:
    with started(env={"fail_at": 20}) as vecenv:
        with pytest.raises(WorkerFailed, match="the wheel fell off") as caught:
            receive(vecenv, 1000, timeout_s=60.0)
        assert "fakes.py" in str(caught.value)


def test_a_worker_that_keeps_dying_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.remote.station.child_process.MAX_QUICK_DEATHS", 2)
    with (
        started(env={"die_at": 4}) as vecenv,
        pytest.raises(WorkerFailed, match=r"died 2 times in a row.*exit status 1 on 127\.0\.0\.1"),
    ):
        receive(vecenv, 1000, timeout_s=60.0)


def test_the_death_of_ray_is_not_that_of_the_learner() -> None:
    with started() as vecenv:
        segments = receive(vecenv, 3, timeout_s=60.0)
        former = [ray_process_of(vecenv), *descendants(ray_process_of(vecenv))]
        os.kill(former[0], signal.SIGKILL)
        while segments[-1].worker == segments[0].worker:
            segments += receive(vecenv, 1, timeout_s=60.0)
        assert_whole_and_in_order(segments)
        assert ray_process_of(vecenv) != former[0]
        wait_until(lambda: not any(is_alive(pid) for pid in former))


def test_the_death_of_the_learner_leaves_nothing() -> None:
    script = (
        "import time\n"
        "from tests.tasks.remote.learner.test_vecenv import make\n"
        "vecenv = make(launcher='ray')\n"
        "vecenv.start()\n"
        "while not vecenv.process_ids():\n    time.sleep(0.05)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    learner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with learner:
        assert learner.stdout is not None
        assert learner.stdout.readline() == "ready\n"
        everything = descendants(learner.pid)
        assert len(everything) > 6
        learner.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in everything), 40.0)


# --- a cluster of several nodes ---


@needs_address
def test_a_node_that_dies_has_its_workers_replaced(cluster: RayCluster, caplog: pytest.LogCaptureFixture) -> None:
    first = cluster.add_node("--num-cpus=2")
    with started(2, {"address": cluster.address}) as vecenv:
        segments = receive_until_both(vecenv, "worker-0", "worker-1")
        assert vecenv._pool is not None
        gateway = vecenv._pool.gateway
        assert gateway.address.startswith(f"{own_address()}:")
        names = cluster.run(
            f"import ray; ray.init('{cluster.address}', log_to_driver=False, configure_logging=False)\n"
            "import json; print('NAMES', json.dumps(ray.util.list_named_actors(all_namespaces=True)))"
        )
        shown = json.loads(names.partition("NAMES ")[2])
        workers = {segment.worker for segment in segments}
        assert {actor["name"] for actor in shown if actor["namespace"] == "tm20-rl"} == workers

        cluster.add_node("--num-cpus=2")
        before = list(vecenv.process_ids().values())
        first.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in before))
        after = receive_until_both(vecenv, "worker-0", "worker-1", 1)  # of what was under way
        segments += after
        while len({segment.worker for segment in segments}) < 4:
            segments += receive(vecenv, 1, timeout_s=90.0)
        segments += receive(vecenv, 10, timeout_s=30.0)
        assert_whole_and_in_order(segments)
        assert vecenv.statistics()["gateway/restarts"] == 2
        assert {segment.worker.rpartition(".")[2] for segment in segments} == {"1", "2"}
        assert "ended with its node" in caplog.text


@needs_address
def test_a_worker_waits_for_a_node_with_its_resource(cluster: RayCluster) -> None:
    cluster.add_node("--num-cpus=2")
    with started(1, {"address": cluster.address, "resources": {"trackmania": 1.0}}) as vecenv:
        assert vecenv.link.receive(3.0) == []
        cluster.add_node("--num-cpus=1", '--resources={"trackmania": 1}')
        receive(vecenv, 3, timeout_s=90.0)


@needs_address
def test_a_cluster_that_is_open_to_anyone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with RayCluster(is_open=True) as cluster:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
        with pytest.raises(WorkerRefused, match="requires no token"), started(1, {"address": cluster.address}):
            pass


@needs_address
def test_a_wrong_token_is_refused(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    message = "does not know the token of this machine, which is in RAY_AUTH_TOKEN"
    with pytest.raises(WorkerRefused, match=message), started(1, {"address": cluster.address}):
        pass


@needs_address
def test_a_node_without_this_project_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.remote.station.child_process.MAX_QUICK_DEATHS", 2)
    monkeypatch.chdir(tmp_path)  # Ray adds the folder of the learner to the module path of workers
    (tmp_path / "node" / "tasks").mkdir(parents=True)
    (tmp_path / "node" / "tasks" / "__init__.py").write_text("")
    with RayCluster() as cluster:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
        cluster.environment["PYTHONPATH"] = f"{tmp_path / 'node'}{os.pathsep}{cluster.environment['PYTHONPATH']}"
        cluster.add_node("--num-cpus=1")
        message = r"No module named 'tasks\.remote'; every node needs this project"
        with started(1, {"address": cluster.address}) as vecenv, pytest.raises(WorkerFailed, match=message):
            receive(vecenv, 1, timeout_s=90.0)


def test_no_cluster_at_the_address_is_said_at_once() -> None:
    began = time.monotonic()
    with (
        pytest.raises(WorkerRefused, match=r"no Ray cluster at ray\.address=127\.0\.0\.1:1: .*refused"),
        started(1, {"address": "127.0.0.1:1"}),
    ):
        pass
    assert time.monotonic() - began < 45.0


@needs_address
@pytest.mark.slow
@pytest.mark.timeout(420)
def test_training_goes_on_when_a_node_dies(cluster: RayCluster, tmp_path: Path) -> None:
    first = cluster.add_node("--num-cpus=3")
    words = ["task=TM20Lidar", "task.game=sim", "task.track=short", "launcher=ray", f"ray.address={cluster.address}"]
    words += ["num_workers=2", "worker.envs_per_worker=2", "max_env_steps=30000", "seed=0", "--headless"]
    words += ["train.params.network.hidden=[32,32]", "train.params.config.env_steps_before_training=500"]
    words += ["train.params.config.evaluation_episodes=1"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (tmp_path / "log").open("w") as log:
        learner = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: "joined as worker" in (tmp_path / "log").read_text() or learner.poll() is not None, 90.0)
        time.sleep(5.0)
        cluster.add_node("--num-cpus=3")
        first.kill()
        assert learner.wait(300.0) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        learner.kill()
        learner.wait(10.0)
    text = (tmp_path / "log").read_text()
    assert text.count("ended with its node") >= 2
    assert len({line.split()[0] for line in text.splitlines() if ".2 joined as worker" in line}) == 2
    assert "30,0" in text.rsplit(" of 30,000 steps", 1)[0][-8:]
