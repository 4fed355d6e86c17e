"""Priority while driving: set if the system permits it, and restored afterwards."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.acting import punctuality
from tasks.acting.punctuality import punctual

linux = pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="scheduling policies are Linux's")


def policies() -> set[int]:
    """Scheduling policies of the threads of this process."""
    return {os.sched_getscheduler(thread.native_id or 0) for thread in threading.enumerate()}


@linux
def test_every_thread_has_priority_while_driving_and_not_afterwards() -> None:
    before = policies()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(30.0,))
    thread.start()
    try:
        with punctual() as done:
            if done != "real-time priority":
                pytest.skip("this user may not schedule in real time")
            assert policies() == {os.SCHED_RR}
        assert policies() == before
    finally:
        release.set()
        thread.join()


@linux
def test_without_permission_it_drives_and_logs_how_to_allow_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setenv("USER", "driver")
    caplog.set_level(logging.INFO)
    punctuality._say_how_to_allow_it.cache_clear()
    before = policies()
    for _ in range(2):
        with punctual() as done:
            assert done == "normal priority"
            assert policies() == before
    assert len(caplog.records) == 1
    assert "'driver - rtprio 1' in /etc/security/limits.d/" in caplog.text


def test_existing_objects_are_not_collected_while_driving() -> None:
    assert gc.get_freeze_count() == 0
    with punctual():
        assert gc.get_freeze_count() > 1000
    assert gc.get_freeze_count() == 0


def test_an_evaluation_within_a_rollout_keeps_the_priority() -> None:
    with punctual() as outer:
        with punctual() as inner:
            assert inner == outer
        assert gc.get_freeze_count() > 1000  # still frozen; some frozen objects may have been freed meanwhile
        if outer == "real-time priority":
            assert policies() == {os.SCHED_RR}


def test_everything_is_restored_after_an_exception() -> None:
    with pytest.raises(KeyError), punctual():
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_on_windows_the_process_gets_the_high_priority_class(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [32]  # NORMAL_PRIORITY_CLASS

    class Process:
        def nice(self, value: int | None = None) -> int:
            if value is not None:
                classes.append(value)
            return classes[-1]

    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=Process, HIGH_PRIORITY_CLASS=128))
    monkeypatch.setattr(sys, "platform", "win32")
    with punctual() as done:
        assert done == "high priority"
        assert classes == [32, 128]
    assert classes == [32, 128, 32]
