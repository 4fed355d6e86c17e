"""The vectorised environment with remote workers: real TLS, real remote workers, a real relay."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.acting.env_source import EnvSource
from tasks.experience.samples import Segment
from tasks.remote.access.credentials import make_credentials
from tasks.remote.access.listener import ListenError
from tasks.remote.config import RemoteConfig, RemoteWorkerConfig
from tasks.remote.learner.vecenv import RemoteVecEnv
from tasks.remote.relay import relay
from tasks.remote.worker import remote_worker
from tests.tasks.remote.learner.test_vecenv import FAKES, POLICY, assert_whole_and_in_order, receive
from tests.tasks.remote.raw_worker import wait_report, wait_until

pytestmark = pytest.mark.timeout(120)

WEIGHTS = {"value": np.array([0.25], np.float32)}


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    make_credentials(folder, [], ["alice", "bob"])
    return folder


def source(function: str = "make_env", **kwargs: Any) -> dict[str, Any]:
    return {"function": f"{FAKES}:{function}", "kwargs": kwargs}


def make(credentials: Path, num_workers: int = 0, remote: dict[str, Any] | None = None, **kwargs: Any) -> RemoteVecEnv:
    remote = {"listen": "127.0.0.1:0", "credentials": str(credentials / "learner"), **(remote or {})}
    defaults: dict[str, Any] = {"policy": POLICY, "segment_rows": 8, "window": 3, "env": source()}
    return RemoteVecEnv("Counting", max(num_workers, 1), num_workers=num_workers, remote=remote, **(defaults | kwargs))


@contextmanager
def started(*args: Any, **kwargs: Any) -> Iterator[RemoteVecEnv]:
    with make(*args, **kwargs) as vecenv:
        vecenv.start()
        yield vecenv


class RemoteWorker:
    """A remote worker in a thread of this process, with a station and an outbox of its own.

    Its address may be what says it, and says None until there is one.
    """

    def __init__(
        self,
        address: str | Callable[[], str | None] | None,
        folder: Path,
        credentials: Path,
        env: dict[str, Any] | None = None,
        policy: dict[str, Any] = POLICY,
        name: str = "alice",
    ) -> None:
        self._address = address
        self._remote = RemoteConfig(credentials=str(credentials / "workers" / name))
        self._worker = RemoteWorkerConfig(samples_per_packet=8, outbox=str(folder / f"outbox-{name}"))
        self._stop = threading.Event()
        self.code: int | None = None
        self._source, self._policy = EnvSource(**({"task": {}} | (env or source()))), policy
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RemoteWorker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        address = self._address
        while callable(address) and not self._stop.wait(0.01):
            address = address() or address
        if not callable(address):
            remote = replace(self._remote, address=address)
            self.code = remote_worker.drive(
                self._source, remote, self._worker, self._policy, headless=True, stop=self._stop
            )


def names(segments: list[Segment]) -> set[str]:
    return {segment.worker.split(".")[0] for segment in segments}


# --- samples and weights ---


def test_without_workers_of_its_own_all_samples_come_from_elsewhere(credentials: Path, tmp_path: Path) -> None:
    with started(credentials) as vecenv, RemoteWorker(vecenv.remote_address, tmp_path, credentials):
        vecenv.link.publish(WEIGHTS, 3)
        segments = receive(vecenv, 20)
        while segments[-1].weights_version != 3:
            segments += receive(vecenv, 1)
        assert vecenv.process_ids() == {}
    assert_whole_and_in_order(segments)
    assert names(segments) == {"alice"}
    acted = segments[-1]
    np.testing.assert_array_equal(acted.action[~acted.is_first], np.float32(0.25))


def test_workers_here_and_elsewhere_learn_together_and_are_shown(credentials: Path, tmp_path: Path) -> None:
    with (
        started(credentials, num_workers=1, evaluator=True) as vecenv,
        RemoteWorker(vecenv.remote_address, tmp_path, credentials),
    ):
        segments = receive(vecenv, 1)
        while names(segments) != {"worker-0", "alice"}:
            segments += receive(vecenv, 1)
        wait_until(lambda: len(vecenv.workers()) == 3, timeout_s=40)  # the evaluator may be the last to join
        rows = {row.name.split(".")[0]: row for row in vecenv.workers()}
        assert set(rows) == {"worker-0", "evaluator-0", "alice"}
        assert rows["alice"].address.startswith("ipv4:127.0.0.1:")
        assert rows["worker-0"].address == ""
        assert rows["alice"].connected
        assert vecenv.statistics()["gateway/remote_workers"] == 1
        assert vecenv.statistics()["gateway/workers"] == 2
        each = {tag: rate for tag, rate in vecenv.statistics().items() if tag.startswith("gateway_samples_per_s/")}
        assert set(each) == {"gateway_samples_per_s/worker-0", "gateway_samples_per_s/alice"}
        assert min(each.values()) > 0.0
        # The evaluator of this machine drives, not the remote worker.
        vecenv.link.request_evaluation(WEIGHTS, 5, seeds=[1, 2])
        report = wait_report(vecenv.link)
        assert len(report.episodes) == 2
    assert_whole_and_in_order(segments)


def test_a_remote_worker_goes_on_behind_what_is_stored_of_it(credentials: Path, tmp_path: Path) -> None:
    with started(credentials) as vecenv, RemoteWorker(vecenv.remote_address, tmp_path, credentials):
        first = receive(vecenv, 4, acknowledge=False)  # all that it may send without an acknowledgement
    assert [segment.seq for segment in first] == [1, 2, 3, 4]
    with make(credentials) as vecenv:
        vecenv.go_on_from({first[0].worker: 2})
        vecenv.start()
        with pytest.raises(RuntimeError, match="before the workers are started"):
            vecenv.go_on_from({})
        with RemoteWorker(vecenv.remote_address, tmp_path, credentials):
            again = receive(vecenv, 6)
    assert_whole_and_in_order(first[:2] + again)


def test_a_worker_with_another_network_or_task_is_told_so(
    credentials: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other_network = {"function": POLICY["function"], "kwargs": {"fail_at_version": 7}}
    other_task = source("make_single_game", folder=str(tmp_path))
    with started(credentials) as vecenv:
        for kwargs, what in (({"policy": other_network}, "network"), ({"env": other_task}, "task")):
            caplog.clear()
            with RemoteWorker(vecenv.remote_address, tmp_path, credentials, **kwargs) as worker:
                worker.join()
            assert worker.code == remote_worker.REFUSED
            assert f"has another {what} than the learner" in caplog.text
        assert vecenv.statistics()["gateway/refused"] == 2


# --- evaluation ---


def seeds_driven(folder: Path) -> list[str]:
    lines = (folder / "diary").read_text().splitlines()
    return [event for _, event in (line.split(" ", 1) for line in lines) if event in ("reset 901", "reset 902")]


def test_one_remote_worker_at_a_time_evaluates_where_only_they_have_the_game(credentials: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("learner", "alice", "bob")}
    for folder in folders.values():
        folder.mkdir()
    envs = {name: source("make_single_game", folder=str(path), step_s=0.01) for name, path in folders.items()}
    with started(credentials, env=envs["learner"], evaluator=True) as vecenv:
        assert vecenv.is_single_game
        vecenv.link.publish(WEIGHTS, 1)

        def evaluate() -> int:
            vecenv.link.request_evaluation(WEIGHTS, 5, seeds=[901, 902])
            deadline = time.monotonic() + 60
            while (report := vecenv.link.poll_evaluation()) is None:
                assert time.monotonic() < deadline, "waited in vain"
                receive_and_store(vecenv)
            assert [episode.seed for episode in report.episodes] == [901, 902]
            assert vecenv.link.poll_evaluation() is None
            return report.weights_version

        with RemoteWorker(vecenv.remote_address, tmp_path, credentials, envs["bob"], name="bob"):
            receive(vecenv, 2)
            with RemoteWorker(vecenv.remote_address, tmp_path, credentials, envs["alice"]):
                while not any(row.name.startswith("alice") and row.segments for row in vecenv.workers()):
                    receive_and_store(vecenv)
                assert evaluate() == 5
                # The one that has been there for longest.
                assert seeds_driven(folders["bob"]) == ["reset 901", "reset 902"]
                assert seeds_driven(folders["alice"]) == []
                assert evaluate() == 5
                assert len(seeds_driven(folders["bob"])) == 4
        with RemoteWorker(vecenv.remote_address, tmp_path, credentials, envs["alice"]):
            assert evaluate() == 5
            assert seeds_driven(folders["alice"]) == ["reset 901", "reset 902"]


def receive_and_store(vecenv: RemoteVecEnv) -> None:
    segments = vecenv.link.receive(0.1)
    vecenv.link.acknowledge({segment.worker: segment.seq for segment in segments})


# --- the relay ---


@pytest.fixture
def relay_address(credentials: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    config = RemoteConfig(listen="127.0.0.1:0", credentials=str(credentials / "relay"))
    thread = threading.Thread(target=relay.run, args=(config,), kwargs={"headless": True, "stop": stop}, daemon=True)
    thread.start()
    wait_until(lambda: "remote.address=" in caplog.text, timeout_s=30)
    yield caplog.text.partition("remote.address=")[2].split()[0]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_workers_behind_a_relay_and_at_the_learner_are_one_source(
    credentials: Path, tmp_path: Path, relay_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["task=TM20Lidar", "train=TM20LidarSAC"]
    with (
        started(credentials, remote={"relay": relay_address}, evaluator=True, worker_words=words) as vecenv,
        RemoteWorker(relay_address, tmp_path, credentials, name="alice"),
        RemoteWorker(vecenv.remote_address, tmp_path, credentials, name="bob"),
    ):
        vecenv.link.publish(WEIGHTS, 1)
        segments = receive(vecenv, 1)
        while names(segments) != {"alice", "bob"} or {segment.weights_version for segment in segments[-4:]} != {1}:
            segments += receive(vecenv, 1)
        wait_until(lambda: {row.name.split(".")[0] for row in vecenv.workers()} >= {"alice", "bob"})
        wait_until(lambda: vecenv.statistics()["gateway/remote_workers"] == 2)
        assert vecenv.statistics()["gateway/relay_connected"] == 1
        vecenv.link.request_evaluation(WEIGHTS, 5, seeds=[1])
        wait_report(vecenv.link)
    assert_whole_and_in_order(segments)
    assert f"python train.py {' '.join(words)} --worker remote.address={relay_address} " in caplog.text


# --- what is said and what is refused ---


def test_the_command_of_a_worker_is_shown_with_the_port_that_was_chosen(
    credentials: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    words = ["task=TM20Lidar", "train=TM20LidarSAC", "task.track=short"]
    with started(credentials, worker_words=words) as vecenv:
        address = vecenv.remote_address
    assert address is not None
    assert not address.endswith(":0")
    command = f"python train.py {' '.join(words)} --worker remote.address={address} remote.credentials=FOLDER"
    assert command in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"remote": {"listen": None, "credentials": None}}, "num_workers must be >= 1 without remote.listen"),
        ({"remote": {"credentials": None}}, r"remote\.listen=127\.0\.0\.1:0 needs remote\.credentials.*make-credent"),
        ({"remote": {"credentials": "/nowhere"}}, "there is no folder /nowhere"),
        ({"remote": {"lissten": "127.0.0.1:0"}}, r"remote\.lissten"),
        ({"policy": None}, r"remote\.listen and remote\.relay need workers that act by themselves"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    credentials: Path, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(credentials, **kwargs)


def test_a_port_that_is_taken_is_said(credentials: Path) -> None:
    with started(credentials) as vecenv:
        second = make(credentials, remote={"listen": vecenv.remote_address})
        with second, pytest.raises(ListenError, match=f"cannot listen on {vecenv.remote_address}: is the port taken"):
            second.start()
