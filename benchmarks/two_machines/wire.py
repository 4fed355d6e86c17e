"""Cables with a delay: pairs of virtual network devices that forward every frame later.

``network`` runs this in the namespace between the machines, because not every kernel can delay packets itself (netem).
It ends when standard input closes, and the devices go with it.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_MAX_FRAME_BYTES = 65_536
_MAX_FRAMES = 20_000
"""Limit of frames in transit; further ones are lost, as in a router with a full queue."""


def end_names(name: str) -> tuple[str, str]:
    """The devices at both ends of a cable: the network's and the machine's."""
    return f"{name}-net", f"{name}-end"


def main() -> None:
    """Arguments: the delay of each direction [ms], and the names of the cables."""
    delay_s, names = float(sys.argv[1]) / 1e3, sys.argv[2:]
    other_end: dict[int, int] = {}
    for name in names:
        near, far = (_open_device(device) for device in end_names(name))
        other_end |= {near: far, far: near}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    carry(other_end, delay_s, sys.stdin.fileno())


def carry(other_end: Mapping[int, int], delay_s: float, until_closed: int) -> None:
    """Carries frames.

    Args:
        other_end: For each end of each cable the opposite one.
        delay_s: How long each frame is on its way [s].
        until_closed: File descriptor; carrying ends when it is closed.
    """
    poll = select.poll()
    for end in (*other_end, until_closed):
        poll.register(end, select.POLLIN)
    # All frames have the same delay, so they leave in the order in which they came.
    frames: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait_s = max(frames[0][0] - time.monotonic(), 0.0) if frames else None
        for end, _ in poll.poll(None if wait_s is None else math.ceil(wait_s * 1e3)):
            if end == until_closed:
                return
            _take(end, other_end[end], delay_s, frames)
        now = time.monotonic()
        while frames and frames[0][0] <= now:
            _, end, frame = frames.popleft()
            _put(end, frame)


def _take(end: int, other_end: int, delay_s: float, frames: deque[tuple[float, int, bytes]]) -> None:
    """All frames that were sent at this end."""
    while True:
        try:
            frame = os.read(end, _MAX_FRAME_BYTES)
        except OSError:  # nothing more, or the device is not up
            return
        if len(frames) < _MAX_FRAMES:
            frames.append((time.monotonic() + delay_s, other_end, frame))


def _put(end: int, frame: bytes) -> None:
    try:
        os.write(end, frame)
    except OSError:  # the machine was removed
        return


def _open_device(name: str) -> int:
    """A network device whose frames are read and written through the file descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


if __name__ == "__main__":
    main()
