"""What runs while a learner has workers: their processes, the gateway, and the way to remote workers.

``vecenv`` opens one at its first use. It decides nothing about environments or policies; what each process does comes
from ``make_worker``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.experience.networking import LearnerLink
from tasks.experience.observation import ObservationSpec
from tasks.process.step_watch import HangReporter
from tasks.remote.access.invitation import announce, announce_relay, read_remote_port
from tasks.remote.access.listener import Port
from tasks.remote.access.run_credentials import make_run_credentials
from tasks.remote.config import RayConfig, RemoteConfig
from tasks.remote.launch.launch import LocalLauncher, Place, WorkerFailed, WorkerLauncher
from tasks.remote.launch.ray_launch import RayLauncher
from tasks.remote.learner.gateway import Gateway
from tasks.remote.learner.link_group import LinkGroup
from tasks.remote.learner.relay_link import open_relay_link
from tasks.remote.worker.worker import WorkerConfig


class Connection(NamedTuple):
    """How a worker process reaches the gateway."""

    address: str
    """host:port."""
    token: str
    """The secret of the run."""
    authority: str | None
    """Certificate that the gateway's is signed by; None: plaintext, on this machine."""


@dataclass(frozen=True)
class PoolConfig:
    """What is opened."""

    spec: ObservationSpec
    """What workers must send."""
    fingerprint: str
    """What they must agree on."""
    places: Sequence[Place]
    """The processes to start."""
    queue_segments: int = 256
    """Segments that wait for the learner at most; beyond them workers wait."""
    ray: RayConfig | None = None
    """Cluster on which the processes run; None: they run on this machine."""
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """The link beyond this machine."""
    worker_words: Sequence[str] = ()
    """Words of the configuration that a remote worker must have."""
    received: Mapping[str, int] = field(default_factory=dict)
    """Sequence numbers up to which the stored replay has the segments of earlier workers."""
    evaluates_here: bool = True
    """Whether one of the processes drives evaluations, so that no remote worker has to."""


class WorkerPool:
    """Opens everything and starts the processes.

    Args:
        config: What is opened.
        make_worker: What a process does, for a place and an incarnation 1, 2, 3, ...

    Raises:
        WorkerRefused: There is nothing to start processes on.
        ListenError: An address cannot be listened on.
        ValueError: Credentials cannot be read.
    """

    def __init__(self, config: PoolConfig, make_worker: Callable[[Connection, Place, int], WorkerConfig]) -> None:
        self._make_worker = make_worker
        self._authority: str | None = None
        self._reporter = HangReporter(
            lambda: {worker.name: worker.hangs_for_s for worker in self.link.workers() if worker.connected}
        )
        places = (config.places, self._worker_config, self._fail)
        self.launcher: WorkerLauncher = (
            LocalLauncher(*places) if config.ray is None else RayLauncher(*places, config.ray)
        )
        """Keeps the processes."""
        opened: list[LearnerLink] = []
        try:
            port = None if config.remote.listen is None else read_remote_port(config.remote)
            self.gateway = self._open_gateway(config, port)
            """To which they are connected."""
            opened.append(self.gateway)
            self.link = self._with_relay(config)
            """All workers, also those behind a relay."""
            opened.append(self.link)
            if port is not None and self.gateway.remote_address is not None:
                announce(port, self.gateway.remote_address, config.worker_words)
            self.launcher.start()
            self._reporter.start()
        except BaseException:
            self.launcher.close()
            for link in reversed(opened):
                link.close()
            raise

    def close(self) -> None:
        """Ends all processes and connections. Calling it twice is fine."""
        self._reporter.close()
        self.launcher.close()
        self.link.close()

    def _open_gateway(self, config: PoolConfig, port: Port | None) -> Gateway:
        host = self.launcher.prepare()
        encryption = make_run_credentials(host)
        self._authority = encryption.authority
        return Gateway(
            config.spec,
            config.fingerprint,
            host=f"[{host}]" if ":" in host else host,
            credentials=encryption.server,
            max_workers=len(config.places),
            queue_segments=config.queue_segments,
            remote=port,
            received=config.received,
        )

    def _with_relay(self, config: PoolConfig) -> LearnerLink:
        if config.remote.relay is None:
            return self.gateway
        relay = open_relay_link(config.remote, config.spec, config.fingerprint, config.received)
        announce_relay(config.remote, config.worker_words)
        return LinkGroup([self.gateway, relay], config.evaluates_here)

    def _worker_config(self, place: Place, incarnation: int) -> WorkerConfig:
        connection = Connection(self.gateway.address, self.gateway.token, self._authority)
        return self._make_worker(connection, place, incarnation)

    def _fail(self, failure: WorkerFailed) -> None:
        self.gateway.fail(failure)
