"""Configuration of remote workers: the groups ``remote``, ``worker`` and ``ray``, and the key ``launcher``.

Standard library only; ``algos.config.schema`` puts them into the configuration of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tasks.words.command_line import Role
from tasks.words.keys import acts_in
from tasks.words.refusals import require

_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})")


class Launcher(Enum):
    """What starts the worker processes."""

    local = "local"
    """This machine, as child processes."""
    ray = "ray"
    """A Ray cluster places them on its nodes and restarts them; the extra ``cluster``."""


class OutboxPolicy(Enum):
    """What a remote worker does when its outbox is full."""

    drop_oldest = "drop_oldest"
    """Goes on driving; the oldest segments are lost, counted, and their streams cut."""
    pause = "pause"
    """Stops driving until there is room."""


@dataclass
class RemoteConfig:
    """The link beyond this machine (``remote``)."""

    listen: str | None = field(default=None, metadata=acts_in(Role.train, Role.server))
    """host:port at which the learner (or with --server the relay) takes remote workers; null: none."""
    address: str | None = field(default=None, metadata=acts_in(Role.worker))
    """With --worker: host:port of the learner or relay to join."""
    relay: str | None = field(default=None, metadata=acts_in(Role.train))
    """host:port of a relay that the learner dials instead of, or besides, listening; null: none."""
    credentials: str | None = None
    """Folder of this process made by --make-credentials: .../learner, .../relay or .../workers/NAME."""
    insecure: bool = False
    """Whether a plaintext listener beyond this machine is allowed, and a worker may use one. Warned about."""
    max_workers: int = field(default=16, metadata=acts_in(Role.train, Role.server))
    """Remote workers for which there is room at a time."""
    max_message_mb: int = 64
    """Larger messages of remote workers are refused [MB]."""

    def __post_init__(self) -> None:
        for name in ("listen", "address", "relay"):
            value = getattr(self, name)
            is_address = value is None or is_host_port(value)
            require(is_address, f"remote.{name}", value, "host:port, such as 0.0.0.0:55555")
        require(1 <= self.max_workers <= 4096, "remote.max_workers", self.max_workers, "1 to 4096")
        require(1 <= self.max_message_mb <= 256, "remote.max_message_mb", self.max_message_mb, "1 to 256 MB")


@dataclass
class RemoteWorkerConfig:
    """A remote worker, and what every worker process holds (``worker``)."""

    name: str | None = None
    """Name under which its token was made; null: that of remote.credentials, else the host's."""
    envs_per_worker: int | str = field(default="auto", metadata=acts_in(Role.train, Role.worker))
    """Environments in each worker process; auto: 16 of the simulator's cars in training, where several steps make one
    update; else 1."""
    samples_per_packet: int | str = "auto"
    """Rows sent at once by --worker (TMRL's key of the rollout worker); auto: link.segment_rows."""
    expert: bool = False
    """Drives with --checkpoint and ignores weights (TMRL's --expert)."""
    deterministic: bool = False
    """Drives with the mean action."""
    episodes: int = 0
    """Episodes after which it ends by itself, everything delivered; 0: none."""
    weights_history: int = 0
    """Keeps every k-th version of the weights in the outbox folder (TMRL's SAVE_MODEL_EVERY); 0: none."""
    outbox: str | None = None
    """Folder of what is not delivered yet; null: runs/outbox/NAME."""
    outbox_mb: int = 1024
    """Size at which the outbox is full [MB]."""
    outbox_policy: OutboxPolicy = OutboxPolicy.drop_oldest
    """drop_oldest or pause."""
    compress: bool = True
    """Whether images are compressed on the way."""

    def __post_init__(self) -> None:
        is_name = self.name is None or bool(re.fullmatch(r"[\w-]{1,64}", self.name))
        require(is_name, "worker.name", self.name, "letters, digits, _ and -")
        for name in ("envs_per_worker", "samples_per_packet"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and value >= 1
            require(is_count or value == "auto", f"worker.{name}", value, "'auto' or >= 1")
        require(self.outbox_mb >= 1, "worker.outbox_mb", self.outbox_mb, ">= 1")
        for name in ("episodes", "weights_history"):
            require(getattr(self, name) >= 0, f"worker.{name}", getattr(self, name), ">= 0")

    @property
    def num_envs(self) -> int:
        """``envs_per_worker``, with auto as 1."""
        return 1 if self.envs_per_worker == "auto" else int(self.envs_per_worker)


@dataclass
class RayConfig:
    """Where Ray places the workers (``ray``), with launcher=ray."""

    address: str = "local"
    """auto (the cluster that this machine belongs to), host:port of its head, or local (a cluster on this machine)."""
    resources: Any = None
    """What one worker process takes of a node, such as {CPU: 1} or {trackmania: 1}; null: {CPU: 1}."""
    namespace: str = "tm20-rl"
    """Under which the workers are shown by name."""

    def __post_init__(self) -> None:
        is_address = self.address in ("local", "auto") or is_host_port(self.address)
        require(is_address, "ray.address", self.address, "local, auto or host:port of the cluster's head")
        is_mapping = self.resources is None or isinstance(self.resources, Mapping)
        require(is_mapping, "ray.resources", self.resources, "names and amounts, such as {CPU: 1}")
        for name, amount in (self.resources or {}).items():
            is_amount = isinstance(amount, int | float) and not isinstance(amount, bool) and amount > 0
            require(is_amount, f"ray.resources.{name}", amount, "a number > 0")

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one worker process takes of a node; never empty."""
        return {str(name): float(amount) for name, amount in (self.resources or {"CPU": 1.0}).items()}


def is_host_port(text: str) -> bool:
    """Whether ``text`` is host:port with a port from 0 to 65535."""
    found = _HOST_PORT.fullmatch(text)
    return found is not None and int(found.group(2)) <= 65535
