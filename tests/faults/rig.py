"""Learner, relay and workers as processes that tests can kill, over connections that tests can break.

A ``Rig`` belongs to one test. Its parts connect through a proxy, so that workers find a learner that restarts on
another port.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.faults.audit import Account, StoredRows
from tests.faults.learner_process import LearnerConfig
from tests.faults.numbered_env import read_ledger
from tests.faults.proxy import TcpProxy
from tests.faults.status_file import read_status
from tests.faults.worker_process import WorkerConfig

WAIT_LIMIT_S = 90.0
"""Limit of every wait [s]; long enough for a busy machine."""
PICTURE_BYTES = 64

_ROOT = Path(__file__).resolve().parents[2]
_TAIL_BYTES = 4_000
_ANNOUNCED = re.compile(rb"workers join at (\S+) ")


class Process:
    """A Python process that can be started, killed and restarted.

    Args:
        name: Of its log.
        program: Arguments of the Python interpreter.
        folder: Folder of its log.
        prefix: Command that starts it, such as one that enters a network namespace.
        environment: Variables beside those of the tests.
        works_in: Its working directory; None: ``folder``.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        folder: Path,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        works_in: Path | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._program = list(program)
        self._folder = folder if works_in is None else works_in
        self._prefix = list(prefix)
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    def launch(self, *words: str) -> None:
        """Starts it in its own process group."""
        assert not self.is_running
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, *self._program, *words],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_failed(self) -> bool:
        """Whether it has ended by itself with an error, or crashed."""
        return self._process is not None and (self._process.poll() or 0) not in (0, -signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Process id of the newest start."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kills it (kill -9) and its child processes; returns when it has ended."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WAIT_LIMIT_S)

    def stop(self) -> int:
        """Sends SIGTERM and waits for the end; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def interrupt(self) -> int:
        """Sends Ctrl-C to it alone and waits for the end; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self, timeout_s: float = WAIT_LIMIT_S) -> int:
        """Waits for the end; returns the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout_s:.0f} s:\n{self.tail()}") from None

    def announced_address(self) -> str:
        """host:port that it printed for workers since its newest start."""

        def found() -> re.Match[bytes] | None:
            return _ANNOUNCED.search(self.log.read_bytes()[self._log_begins :])

        wait_until(lambda: found() or not self.is_running, self)
        announced = found()
        assert announced is not None, f"{self.name} ended:\n{self.tail()}"
        return announced.group(1).decode()

    def tail(self) -> str:
        """The end of its log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        return ""

    def close(self) -> None:
        """Ends it for good."""
        if self._process is not None:
            self.kill()


class LearnerProcess(Process):
    """A learner; its stored replay stays when it is killed.

    Args:
        folder: Of its log, its status and its replay.
        config: Of ``learner_process``, but for folder and status.
        found_by: The proxy that leads to it.
        name: Of its log.
        replay: Where its replay lies; None: below ``folder``.
        **kwargs: Of ``Process``.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        found_by: TcpProxy | None = None,
        name: str = "learner",
        replay: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, ["-m", "tests.faults.learner_process"], folder, **kwargs)
        self.replay = folder / "replay" if replay is None else replay
        self._status = folder / f"{name}.status"
        self._settings = config
        self._found_by = found_by

    def start(self, **changes: Any) -> None:
        """Starts it, with its stored replay if there is one; returns when it accepts connections."""
        self.begin(**changes)
        self.await_ready()

    def begin(self, **changes: Any) -> None:
        """``start`` without waiting."""
        self._status.unlink(missing_ok=True)
        self._settings = {**self._settings, **changes}
        self.launch(LearnerConfig(folder=str(self.replay), status=str(self._status), **self._settings).to_json())

    def await_ready(self) -> None:
        """Waits until it accepts connections, or connects to its relay."""
        wait_until(lambda: self.status or not self.is_running, self)
        assert self.is_running, f"{self.name} ended:\n{self.tail()}"
        if self._found_by is not None:
            self._found_by.target = self.status["address"]

    def await_rows(self, count: int, *others: Process) -> None:
        """Waits until it has this many rows, while the other processes run."""
        wait_until(lambda: self.rows >= count, self, *others)

    def await_more(self, count: int, *others: Process) -> None:
        """Waits until it has received this many more rows."""
        self.await_rows(self.rows + count, *others)

    @property
    def status(self) -> dict[str, Any]:
        """Its newest status."""
        return read_status(self._status)

    @property
    def rows(self) -> int:
        """Rows in its replay."""
        return int(self.status.get("rows", 0))

    @property
    def unacknowledged(self) -> int:
        """Segments that it has received and not stored."""
        return int(self.status["statistics"]["gateway/unacknowledged"])

    def kill(self) -> None:
        """kill -9."""
        super().kill()
        if self._found_by is not None:
            self._found_by.target = None


class WorkerProcess(Process):
    """A remote worker with its station; its outbox stays when both are killed.

    Args:
        folder: Of its log, its ledger and its outbox.
        config: Of ``worker_process``, but for outbox and ledger.
        name: Of its log.
        outbox: Where its outbox lies; None: below ``folder``.
        **kwargs: Of ``Process``.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], name: str = "worker", outbox: Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name, ["-m", "tests.faults.worker_process"], folder, **kwargs)
        self.outbox = folder / f"{name}.outbox" if outbox is None else outbox
        self._ledger = folder / f"{name}.ledger"
        self._settings = config

    def start(self, **changes: Any) -> None:
        """Starts it; after a kill it continues after the last row in its outbox."""
        self._settings = {**self._settings, **changes}
        self.launch(WorkerConfig(outbox=str(self.outbox), ledger=str(self._ledger), **self._settings).to_json())

    def start_again(self, rows: int) -> int:
        """Starts it after a kill.

        Args:
            rows: It drives until it has made at least this many in all.

        Returns:
            How many it will have made.
        """
        kept, episode = self.kept, int(self._setting("length")) + 1
        episodes = max(-((kept - rows) // episode), 1)
        self.start(first=kept + 1, episodes=episodes)
        return kept + episodes * episode

    def await_made(self, count: int, *others: Process) -> None:
        """Waits until it has driven this many rows, while the other processes run."""
        wait_until(lambda: self.made >= count, self, *others)

    @property
    def made(self) -> int:
        """Number of the newest row that was driven."""
        return read_ledger(self._ledger)

    @property
    def kept(self) -> int:
        """Rows up to which the outbox of a worker that is not running has taken everything.

        Read from the file itself: every segment of a worker that was killed has the same number of rows.
        """
        assert not self.is_running
        with contextlib.closing(sqlite3.connect(self.outbox / "outbox.sqlite3")) as db:
            (segments,) = db.execute("SELECT value FROM facts WHERE name = 'last_seq'").fetchone() or (0,)
        return int(segments) * int(self._setting("rows"))

    def finish(self, timeout_s: float = WAIT_LIMIT_S) -> None:
        """Waits until it has delivered everything and ended by itself."""
        code = self.wait(timeout_s)
        assert code == 0, f"{self.name} ended with {code}:\n{self.tail()}"

    def station_pid(self) -> int:
        """Process id of its station, once that runs."""

        def children() -> list[int]:
            threads = Path(f"/proc/{self.pid}/task").glob("*/children")
            return [int(pid) for thread in threads for pid in thread.read_text().split()]

        wait_until(children, self)
        return children()[0]

    def _setting(self, name: str) -> Any:
        return self._settings.get(name, WorkerConfig.__dataclass_fields__[name].default)


class RelayProcess(Process):
    """A relay.

    Args:
        folder: Of its log.
        config: ``RemoteConfig``, beside what all relays have here.
        found_by: The proxies that lead to it.
    """

    def __init__(self, folder: Path, config: dict[str, Any], found_by: Sequence[TcpProxy] = ()) -> None:
        super().__init__("relay", ["-m", "tests.tasks.remote.relay_process", "relay"], folder)
        self._settings = config
        self._found_by = found_by

    def start(self) -> None:
        """Starts it; returns when it accepts connections."""
        self.launch(json.dumps({"listen": "127.0.0.1:0", "max_workers": 32, "max_message_mb": 4, **self._settings}))
        address = self.announced_address()
        for proxy in self._found_by:
            proxy.target = address

    def kill(self) -> None:
        """kill -9."""
        super().kill()
        for proxy in self._found_by:
            proxy.target = None


class Rig:
    """A learner, workers, relays and the proxies between them, for one test.

    Args:
        folder: For everything.
        credentials: Made by the product.
        picture_bytes: Size of the picture in each row.
        log_folder: For what ``program`` prints; None: ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        credentials: Path,
        picture_bytes: int = PICTURE_BYTES,
        log_folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self._log_folder = folder if log_folder is None else log_folder
        self.credentials = credentials
        self.picture_bytes = picture_bytes
        self._stack = contextlib.ExitStack()
        self.proxy = self._stack.enter_context(TcpProxy())

    def learner(self, *, found_by: TcpProxy | None = None, is_local: bool = True, **config: Any) -> LearnerProcess:
        """A learner behind ``proxy``, or at another address; not started."""
        kwargs = {key: config.pop(key) for key in ("replay", "name", "prefix", "environment") if key in config}
        base = {"credentials": str(self.credentials / "learner"), "picture_bytes": self.picture_bytes}
        proxy = found_by or (self.proxy if is_local else None)
        return self._owned(LearnerProcess(self.folder, {**base, **config}, proxy, **kwargs))

    def worker(self, name: str = "w0", *, address: str | None = None, **config: Any) -> WorkerProcess:
        """A worker with the credentials of this name; not started."""
        kwargs = {key: config.pop(key) for key in ("outbox", "prefix", "environment") if key in config}
        base = {
            "address": address or self.proxy.address,
            "credentials": str(self.credentials / "workers" / name),
            "picture_bytes": self.picture_bytes,
        }
        log = config.pop("log", name)
        return self._owned(WorkerProcess(self.folder, {**base, **config}, log, **kwargs))

    def relay(self, found_by: Sequence[TcpProxy], **config: Any) -> RelayProcess:
        """A relay; not started."""
        base = {"credentials": str(self.credentials / "relay")}
        return self._owned(RelayProcess(self.folder, {**base, **config}, found_by))

    def another_proxy(self) -> TcpProxy:
        """Another proxy."""
        return self._stack.enter_context(TcpProxy())

    def stored(self, learner: LearnerProcess) -> StoredRows:
        """Stops a learner and reads its stored replay."""
        if learner.is_running:
            code = learner.stop()
            assert code == 0, f"the learner ended with {code}:\n{learner.tail()}"
        rows = StoredRows(learner.replay, self.picture_bytes)
        assert not rows.damage, rows.damage[:5]
        return rows

    def account(self, learner: LearnerProcess, **sent: int) -> Account:
        """Stops a learner and counts the rows of each worker."""
        return self.stored(learner).account(sent)

    def close(self) -> None:
        """Ends all processes and proxies."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def program(self, name: str, *words: str) -> Process:
        """``train.py`` with these arguments, in its own folder; not started."""
        program = [str(_ROOT / "train.py"), *words]
        return self._owned(Process(name, program, self._log_folder, works_in=self.folder))

    def _owned(self, process: Any) -> Any:
        self._stack.callback(process.close)
        return process


def wait_until(condition: Callable[[], Any], *processes: Process, timeout_s: float = WAIT_LIMIT_S) -> None:
    """Polls until a condition holds.

    Raises:
        AssertionError: The time limit passed; the message has the ends of the processes' logs.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        broken = [process.name for process in processes if process.has_failed]
        if broken or time.monotonic() > deadline_s:
            logs = "\n".join(f"--- {process.name}\n{process.tail()}" for process in processes)
            reason = f"{', '.join(broken)} failed" if broken else f"waited in vain for {timeout_s:.0f} s"
            raise AssertionError(f"{reason}\n{logs}")
        time.sleep(0.02)
