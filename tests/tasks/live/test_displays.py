"""Tests of the live game on a machine that cannot run them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.tasks.live import displays
from tests.tasks.live.stand_ins import ROOT


def test_without_an_x_server_a_test_is_skipped_with_the_command_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TM_REQUIRE_DISPLAY", raising=False)
    with pytest.raises(pytest.skip.Exception) as skipped:
        displays.require_server()
    assert str(skipped.value) == "Xvfb is not installed: sudo apt install xvfb libevdev2"


def test_with_require_display_it_fails_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TM_REQUIRE_DISPLAY", "1")
    with pytest.raises(pytest.fail.Exception, match="sudo apt install xvfb libevdev2"):
        displays.require_server()


def test_a_run_that_skips_ends_with_one_line_that_has_the_command() -> None:
    needs_a_display = "tests/tasks/stand_in/test_stand_in.py"
    inherited = ("TM_REQUIRE_DISPLAY", "PYTEST_ADDOPTS")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", needs_a_display, "-k", "window"],
        cwd=ROOT,
        env={**environment, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    (line,) = [line for line in done.stdout.splitlines() if "apt" in line]
    assert line.endswith("tests were skipped for want of system packages: sudo apt install xvfb libevdev2"), line


@pytest.mark.skipif(os.environ.get("TM_REQUIRE_DISPLAY") != "1", reason="only where everything must run")
def test_where_no_test_may_be_skipped_every_package_is_installed() -> None:
    packages = ("Xlib", "mss", "pygame", "vgamepad", "libevdev")
    assert [package for package in packages if importlib.util.find_spec(package) is None] == []
