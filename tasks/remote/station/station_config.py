"""What a remote worker tells its station when it starts it, and what the station says of itself: plain data as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.remote.station.child_process import Line

LEAVE = "leave"
"""The line with which a worker says that it has handed over everything, and ends."""


@dataclass(frozen=True)
class StationConfig(Line):
    """Everything a station needs."""

    listen: str
    """host:port of this machine at which the worker finds it; port 0: any that is free."""
    token: str
    """The secret that the worker must know."""
    address: str
    """host:port of the learner or relay."""
    credentials: str
    """Folder with name and token, and the certificate of the authority."""
    is_plaintext: bool
    """Whether the connection to it is not encrypted."""
    name: str
    """Of the worker; several of one machine may share it."""
    fingerprint: str
    """What worker and learner must agree on."""
    session: str
    """Names this run of the worker."""
    outbox: str
    """Folder; another one beside it when it is taken."""
    outbox_bytes: int
    outbox_policy: str
    """Name of an ``OutboxPolicy``."""
    max_message_bytes: int
    compress: bool = False
    """Whether images are compressed."""
    holds_back: bool = False
    """Whether a segment is durable for the worker when the learner has stored it; else when the outbox has it."""
    takes_weights: bool = True
    """Whether the worker gets weights."""
    evaluates: bool = False
    """Whether the worker gets requests for evaluations."""
    weights_history: int = 0
    """Every so many-th version is kept in the outbox folder; 0: none."""
    software: dict[str, str] = field(default_factory=dict)
    """Names and versions, for the learner's log."""


@dataclass(frozen=True)
class StationStatus(Line):
    """How things are at a station."""

    listen: str = ""
    """host:port at which the worker finds it."""
    worker: str = ""
    """Name under which the learner knows this worker: its own and that of its outbox."""
    folder: str = ""
    """Of the outbox."""
    taken: int = 0
    """The worker's segments up to this number are in the outbox, or counted as dropped."""
    segments: int = 0
    """Not stored by the learner yet."""
    num_bytes: int = 0
    """Their size."""
    dropped: int = 0
    """Segments lost because there was no room."""
    full: str = ""
    """Why the outbox takes nothing more; empty: it does."""
    has_joined: bool = False
    """Whether the learner has ever taken this worker in."""
    is_connected: bool = False
    trouble: str = ""
    """What keeps the learner from being reached."""
    weights_version: int = 0
    """Newest version that has come in."""
    round_trip_ms: float | None = None
    """What a call and its answer take; None: not known."""
    refusal: str = ""
    """Why the station has given up: there is something that the user has to put right."""
    failure: str = ""
    """Why the station has given up: a fault of the program, with its traceback."""
