"""The launcher of a Ray cluster, against a process that speaks as the one that talks to Ray; ``test_ray_cluster`` has
the real one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from algos.config.remote_keys import check_remote
from tasks.remote.config import Launcher, RayConfig
from tasks.remote.launch import ray_launch
from tasks.remote.launch.launch import Place, WorkerFailed, WorkerRefused
from tasks.remote.launch.ray_launch import RayLauncher
from tasks.remote.station import child_process
from tasks.remote.worker.worker import WorkerConfig
from tests.tasks.remote.raw_worker import wait_until
from tests.test_config_files import run_config

pytestmark = pytest.mark.timeout(60)

PLACE = Place("worker", 0)


class Scene:
    """A launcher whose process that talks to Ray plays a behaviour."""

    def __init__(self, folder: Path, behaviour: str, num_places: int, **ray: Any) -> None:
        self._starts = folder / "starts"
        self.failures: list[WorkerFailed] = []
        places = [Place("worker", index) for index in range(num_places)]
        config = RayConfig(**{"address": "auto", "namespace": f"{behaviour}:{folder}", **ray})
        self.launcher = RayLauncher(places, make_config, self.failures.append, config)

    def starts(self) -> list[dict[str, Any]]:
        """What each such process was started with."""
        return [json.loads(line) for line in self._starts.read_text().splitlines()]

    def started(self) -> Scene:
        """The same, with its workers."""
        self.launcher.prepare()
        self.launcher.start()
        return self


def make_config(place: Place, incarnation: int) -> WorkerConfig:
    return WorkerConfig("10.1.2.3:1", "secret", f"worker-{place.index}.x.{incarnation}", 0, incarnation, "worker", {})


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Scene]:
    monkeypatch.setattr(ray_launch, "_MODULE", "tests.tasks.remote.fake_ray_process")
    monkeypatch.setattr(ray_launch, "check_ray", lambda: None)
    monkeypatch.setattr(child_process, "FIRST_PAUSE_S", 0.001)

    def begin(behaviour: str, num_places: int = 1, **ray: Any) -> Scene:
        scene = Scene(tmp_path, behaviour, num_places, **ray)
        request.addfinalizer(scene.launcher.close)
        return scene

    return begin


def test_without_ray_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[cluster\]'"):
        RayLauncher([PLACE], make_config, print, RayConfig())


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265", ""])
def test_only_addresses_of_a_cluster_are_taken(address: str) -> None:
    with pytest.raises(ValueError, match=r"ray\.address must be local, auto or host:port"):
        RayConfig(address=address)


@pytest.mark.parametrize(
    ("word", "resources"),
    [
        (None, {"CPU": 1.0}),
        ("ray.resources={trackmania:1}", {"trackmania": 1.0}),
        ("ray.resources={CPU:2,GPU:0.25}", {"CPU": 2.0, "GPU": 0.25}),
    ],
)
def test_resources_are_what_was_typed(word: str | None, resources: dict[str, float]) -> None:
    words = [] if word is None else [word]
    assert run_config("task=TM20Lidar", "launcher=ray", *words).ray.worker_resources == resources


@pytest.mark.parametrize("resources", [{"CPU": 0}, {"CPU": "many"}, {"CPU": True}, ["CPU"], "CPU"])
def test_resources_that_are_none_are_refused(resources: Any) -> None:
    with pytest.raises(ValueError, match=r"^ray\.resources(\.CPU)? must be "):
        RayConfig(resources=resources)


def test_workers_learn_how_the_nodes_reach_the_learner(play: Callable[..., Scene]) -> None:
    assert play("steady").launcher.prepare() == "10.1.2.3"


def test_workers_are_placed_and_named_and_end_with_the_launcher(
    play: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene = play("steady", num_places=3).started()
    places = [Place("worker", index) for index in range(3)]
    wait_until(lambda: scene.launcher.process_ids() == dict.fromkeys(places, 41))
    text = caplog.text
    assert "worker-2.x.1 runs on 10.1.2.4" in text
    assert "worker-1.x.1 waits for a node with {CPU: 1} free" in text
    assert "worker-0.x.1 | incarnation 1 of worker-0.x.1" in text
    assert text.count("the code of this project on 10.1.2.4 is not the learner's") == 1
    scene.launcher.close()
    assert scene.launcher.process_ids() == {}
    scene.launcher.close()
    assert (scene.failures, scene.launcher.restarts) == ([], 0)


def test_a_worker_that_keeps_dying_is_given_up_with_its_last_lines(play: Callable[..., Scene]) -> None:
    scene = play("dies").started()
    wait_until(lambda: bool(scene.failures))
    (failure,) = scene.failures
    assert "worker 0 died 5 times in a row" in str(failure)
    assert "by signal 9 on node-1" in str(failure)
    assert "incarnation 5 of worker-0.x.5" in str(failure)


def test_why_ray_could_not_run_a_worker_is_said(play: Callable[..., Scene]) -> None:
    scene = play("cannot").started()
    wait_until(lambda: bool(scene.failures))
    assert str(scene.failures[0]).endswith("no such module")


def test_an_exception_on_a_node_reaches_the_user_with_its_traceback(play: Callable[..., Scene]) -> None:
    scene = play("reports").started()
    wait_until(lambda: bool(scene.failures))
    assert "the wheel fell off\n\nIts traceback:\nin step" in str(scene.failures[0])


def test_a_node_that_is_lost_is_not_counted_against_the_worker(play: Callable[..., Scene]) -> None:
    scene = play("loses").started()
    wait_until(lambda: scene.launcher.process_ids() == {PLACE: 48})
    assert scene.launcher.restarts == 7
    assert scene.failures == []


def test_a_cluster_that_comes_back_gets_its_workers_again(play: Callable[..., Scene]) -> None:
    scene = play("crashes", num_places=2).started()
    wait_until(lambda: len(scene.launcher.process_ids()) == 2 and len(scene.starts()) == 2)
    assert scene.failures == []


def test_a_cluster_that_stays_away_is_given_up(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_launch, "CLUSTER_GONE_S", 0.5)
    monkeypatch.setattr(ray_launch, "_FIRST_PAUSE_S", 0.1)
    scene = play("leaves").started()
    wait_until(lambda: bool(scene.failures))
    assert str(scene.failures[0]) == "no Ray cluster at ray.address=auto: the head is gone"
    assert "the head is gone; tried again in 0 s" in caplog.text


def test_a_refusal_at_the_start_says_why(play: Callable[..., Scene]) -> None:
    with pytest.raises(WorkerRefused, match=r"^no Ray cluster at ray\.address=auto: the head is gone$"):
        play("refuses").launcher.prepare()


def test_no_answer_at_the_start_is_waited_for_no_longer_than_that(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launch, "_ANSWER_S", 0.3)
    monkeypatch.setattr(ray_launch, "_CLOSE_S", 0.3)
    with pytest.raises(WorkerRefused, match="no answer for"):
        play("hangs").launcher.prepare()


def test_a_process_that_hangs_does_not_hold_up_the_end(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launch, "_CLOSE_S", 0.3)
    scene = play("hangs")
    scene.launcher._is_closing.set()
    with pytest.raises(WorkerRefused):
        scene.launcher.prepare()
    process = scene.launcher._process
    assert process is not None
    assert process._process.poll() is not None


def test_the_process_is_told_everything_but_in_its_arguments(play: Callable[..., Scene]) -> None:
    scene = play("steady", resources={"trackmania": 1.0}).started()
    (start,) = scene.starts()
    assert start["config"]["resources"] == {"trackmania": 1.0}
    assert start["config"]["num_workers"] == 1
    process = scene.launcher._process
    assert process is not None
    assert "secret" not in Path(f"/proc/{process._process.pid}/cmdline").read_text()


def test_token_authentication_is_on(play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    scene = play("steady")
    scene.launcher.prepare()
    assert scene.starts()[0]["env"]["RAY_AUTH_MODE"] == "token"


def test_a_cluster_of_its_own_has_a_secret_of_its_own_and_stays_on_this_machine(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    secrets = set()
    for count in range(2):
        scene = play("steady", address="local")
        scene.launcher.prepare()
        environment = scene.starts()[count]["env"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        secrets.add(environment["RAY_AUTH_TOKEN"])
    assert len(secrets) == 2
    assert all(len(secret) == 64 for secret in secrets)


def test_an_open_cluster_is_warned_about_where_it_was_asked_for(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    scene = play("steady")
    scene.launcher.prepare()
    assert "RAY_AUTH_MODE=disabled: anybody who reaches the ports of this Ray cluster can run code" in caplog.text
    assert scene.starts()[0]["env"]["RAY_AUTH_MODE"] == "disabled"


def test_launcher_ray_is_refused_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config("task=TM20Lidar", "launcher=ray")
    assert config.launcher is Launcher.ray
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package ray"):
        check_remote(config, "train")
