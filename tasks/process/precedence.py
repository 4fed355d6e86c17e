"""Which process comes first where several want the same core. Imports nothing of the project."""

from __future__ import annotations

import os

_NICENESS = 5


def step_back() -> None:
    """Lets processes with usual precedence come first; that of a parent that drives in real time is inherited."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
