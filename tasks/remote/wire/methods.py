"""All methods of the service, in one table: who may call each, what it answers with, and for how long it may take.

Every method takes a stream of requests, of which nothing is read before the token was checked. Servers (``listener``)
and clients go by this table; a method that is not in it cannot be served.
"""

from __future__ import annotations

from typing import NamedTuple

SERVICE = "tm.v1.Link"
WORKER = "worker"
"""Role of a token that sends segments and takes weights."""
LEARNER = "trainer"
"""Role of the token with which a learner takes segments from a relay and gives it weights; its name in tokens.json."""
SHORT_S = 30.0
"""What a call with one message may take [s]."""


class Method(NamedTuple):
    """One method."""

    role: str = WORKER
    """Of the tokens that may call it."""
    is_stream: bool = False
    """Whether the answer is a stream too; else it is one message."""
    limit_s: float = SHORT_S
    """After this time a call is cut off, unless it is a stream that has been taken up [s]."""


METHODS = {
    "Hello": Method(),
    "Ping": Method(),
    "Push": Method(is_stream=True),
    "Weights": Method(is_stream=True),
    "Report": Method(),
    "LockStep": Method(is_stream=True),
    "Pull": Method(LEARNER, is_stream=True),
}


def path_of(name: str) -> str:
    """What gRPC calls the method ``name``."""
    assert name in METHODS
    return f"/{SERVICE}/{name}"
