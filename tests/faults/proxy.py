"""A TCP proxy that can cut connections, hold data back, leave connections half open and limit their speed.

It runs in a thread of the test. A fault affects all open connections, and new ones
where the method says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Self

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)

Side = Literal["client", "server"]


class TcpProxy:
    """Listens on one port of this machine; its target may change.

    Args:
        target: host:port; None: there is no target yet.
    """

    def __init__(self, target: str | None = None) -> None:
        self.target = target
        self.connections = 0
        """Connections accepted so far."""
        self.bytes_per_s: float | None = None
        """Speed in each direction of each connection; None: no limit."""
        self._refuses = False
        self._pairs: set[_Pair] = set()
        self._pumps: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._start())
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        """host:port that clients dial."""

    # --- faults ---

    def cut(self) -> None:
        """Resets (RST) all connections, and every new one until ``restore``."""
        self._call(self._cut())

    def swallow(self) -> None:
        """Holds all data back without an error; also that of new connections."""
        self._call(self._set(self._flows.clear))

    def strand(self, side: Side) -> None:
        """Makes all connections half open: this side keeps an open connection that stays silent.

        Data that it sends is accepted and discarded, so that TCP reports no error. The other side's connection is
        reset; new ones go through.
        """
        self._call(self._strand(side))

    def restore(self) -> None:
        """Ends ``cut`` and ``swallow``; data that was held back arrives late."""
        self._refuses = False
        self._call(self._set(self._flows.set))

    @property
    def num_open(self) -> int:
        """Number of open connections."""
        return sum(not pair.is_stranded for pair in self._pairs)

    def close(self) -> None:
        """Ends everything."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- in the loop ---

    async def _start(self) -> asyncio.Server:
        self._flows.set()
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._flows.wait()
        if self._refuses or self.target is None:
            _reset(writer)
            return
        host, _, port = self.target.rpartition(":")
        try:
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, server_writer)
        if self._refuses:
            pair.reset()
            return
        self._pairs.add(pair)
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            self._pumps.add(asyncio.ensure_future(self._pump(pair, source, sink)))

    async def _pump(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if pair.is_stranded:
                    continue
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if not pair.is_stranded:
                self._pairs.discard(pair)
                pair.reset()

    async def _cut(self) -> None:
        self._refuses = True
        for pair in list(self._pairs):
            pair.reset()

    async def _strand(self, side: Side) -> None:
        for pair in list(self._pairs):
            pair.strand(side)

    async def _set(self, action: Callable[[], None]) -> None:
        action()

    async def _stop(self) -> None:
        self._server.close()
        self._flows.set()
        for pair in list(self._pairs):
            pair.is_stranded = False
            pair.reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)


class _Pair:
    """A client's connection and its counterpart to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._writers = {"client": client, "server": server}
        self.is_stranded = False

    def reset(self) -> None:
        for writer in self._writers.values():
            _reset(writer)

    def strand(self, side: Side) -> None:
        self.is_stranded = True
        _reset(self._writers["server" if side == "client" else "client"])


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
