"""Skips tests that need root, with one line; with TM_REQUIRE_ROOT_FAULTS=1 they fail instead."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def need_root(what: str) -> None:
    """Skips a test that needs root; with TM_REQUIRE_ROOT_FAULTS=1 it fails instead."""
    if os.name != "posix" or os.geteuid() != 0:
        refuse(f"{what} needs root on Linux")


def refuse(reason: str) -> NoReturn:
    """Skips a test; with TM_REQUIRE_ROOT_FAULTS=1 it fails instead."""
    if os.environ.get("TM_REQUIRE_ROOT_FAULTS") == "1":
        pytest.fail(f"TM_REQUIRE_ROOT_FAULTS=1, but {reason}")
    pytest.skip(reason)
