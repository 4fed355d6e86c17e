"""How many streams remote workers may begin: each is remembered for as long as the replay is.

Gateway and relay link ask it for every segment. A worker begins a stream for each of its environments at each start;
somebody who got hold of a token could begin one with each row.
"""

from __future__ import annotations

from tasks.remote.wire import link

MAX_STREAMS = 10_000
"""Streams under one name since the learner was started."""


class StreamLimit:
    """Counts the streams of each name. Not thread-safe."""

    def __init__(self) -> None:
        self._streams: dict[str, set[tuple[str, int]]] = {}

    def check(self, worker: str, stream: int) -> None:
        """Takes note of a stream.

        Args:
            worker: NAME, or NAME.SUFFIX for each outbox of this name.
            stream: Number that the segment has there.

        Raises:
            LinkError: There are too many.
        """
        name = worker.partition(".")[0]
        streams = self._streams.setdefault(name, set())
        if (worker, stream) in streams:
            return
        if len(streams) >= MAX_STREAMS:
            raise link.LinkError(
                f"{MAX_STREAMS} streams were begun under the name {name} since the learner was started, so its workers "
                "are started again and again; find out why, and restart the learner to let them in"
            )
        streams.add((worker, stream))
