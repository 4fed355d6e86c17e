"""One training of TM20Lidar: on one machine, with workers on others, or over a relay; and its result."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algos.run.checkpoint import load_checkpoint
from benchmarks.two_machines.account import Account, account
from benchmarks.two_machines.network import Network
from benchmarks.two_machines.program import Program, ProgramError
from tasks.remote.access.credentials import make_credentials

TASK = "TM20Lidar"
PORT = 55555
LEARNER, RELAY = "learner", "relay"

_LONGEST_S = 3_600.0
_LONGEST_PLAY_S = 300.0
_POLL_S = 0.5
_PACE_TAGS = {
    "steps_per_s": "time/env_steps_per_second",
    "update_ratio": "time/update_ratio",
    "weights_age_updates": "rollout/weights_age_updates",
    "weights_age_s": "gateway/weights_age_s",
    "round_trip_ms": "gateway/round_trip_ms",
    "repeated": "gateway/duplicates",
}


class Way(Enum):
    """Placement of the processes."""

    one_machine = "one machine"
    """The learner starts its workers itself."""
    direct = "direct"
    """Workers on other machines connect to the learner."""
    relay = "relay"
    """Workers on other machines and the learner connect to a relay on a fourth machine."""


@dataclass(frozen=True)
class Setting:
    """What is trained, and where."""

    way: Way
    seed: int = 0
    steps: int = 60_000
    track: str = "short"
    num_workers: int = 2
    round_trip_ms: float = 0.0
    """Between machines, besides what it takes anyway."""
    words: tuple[str, ...] = ()
    """Further arguments of the learner."""

    @property
    def title(self) -> str:
        """Title in the tables."""
        distance = f", {self.round_trip_ms:g} ms" if self.round_trip_ms else ""
        return f"{self.way.value}{distance}, seed {self.seed}"

    @property
    def workers(self) -> tuple[str, ...]:
        """Machines of the workers."""
        return () if self.way is Way.one_machine else tuple(f"pc{index + 1}" for index in range(self.num_workers))

    @property
    def machines(self) -> tuple[str, ...]:
        """All machines."""
        relays = (RELAY,) if self.way is Way.relay else ()
        return (LEARNER, *relays, *self.workers)


class Driven(NamedTuple):
    """Result of ``best.pth`` in fresh episodes."""

    episodes: int
    finished: int
    mean_lap_s: float
    std_lap_s: float
    ratio: float
    """Mean lap over the scripted driver's."""


class Outcome(NamedTuple):
    """Result of a training."""

    setting: Setting
    best_at: int
    """Steps after which ``best.pth`` was chosen."""
    steps: int
    minutes: float
    driven: Driven
    segments: Account
    pace: dict[str, float]
    """Means over the records of the training; of ``repeated`` the last."""
    round_trips: dict[tuple[str, str], float | None]
    """``Network.round_trips``."""
    open_ports: dict[str, list[str]]
    """Per machine, while training."""
    megabytes: dict[str, tuple[float, float]]
    """Per machine: in, out."""


def train(setting: Setting, folder: Path) -> Outcome:
    """Trains, plays ``best.pth`` and counts.

    Args:
        setting: What and where.
        folder: Empty; each machine gets a folder of its own in it.

    Raises:
        ProgramError: One of the programs ended as it should not.
        OSError: The network cannot be laid out.
    """
    if setting.way is Way.one_machine:
        words = [*_learner_words(setting), f"num_workers={setting.num_workers}"]
        with Program(LEARNER, words, folder / LEARNER) as learner:
            learner.wait(_LONGEST_S)
        return _outcome(setting, folder, {}, {}, {})
    reachable = RELAY if setting.way is Way.relay else LEARNER
    with Network(setting.machines, reachable, setting.round_trip_ms) as network:
        round_trips = network.round_trips()
        _hand_out_credentials(setting, network.address(reachable), folder)
        with _programs(setting, network, folder) as (learner, others):
            _await_training(learner, others)
            open_ports = {machine: network.open_ports(machine) for machine in setting.machines}
            _await_end(learner, others)
            for other in others:
                other.interrupt()
        megabytes = {machine: network.megabytes(machine) for machine in setting.machines}
    return _outcome(setting, folder, round_trips, open_ports, megabytes)


def _hand_out_credentials(setting: Setting, host: str, folder: Path) -> None:
    """Makes the credentials in another folder, and gives each machine only its own."""
    made = folder / "credentials"
    make_credentials(made, [host], setting.workers)
    for machine in setting.machines:
        own = made / "workers" / machine if machine in setting.workers else made / machine
        shutil.copytree(own, folder / machine / "credentials")


@contextmanager
def _programs(setting: Setting, network: Network, folder: Path) -> Iterator[tuple[Program, list[Program]]]:
    """Starts the learner and the other programs, each on its machine."""
    credentials = "remote.credentials=credentials"
    listen, address = f"remote.listen=0.0.0.0:{PORT}", f"{network.address(setting.machines[0])}:{PORT}"
    where = listen
    with ExitStack() as stack:

        def start(machine: str, words: Sequence[str]) -> Program:
            return stack.enter_context(
                Program(machine, [*words, credentials, "--headless"], folder / machine, network.at(machine))
            )

        others = []
        if setting.way is Way.relay:
            address = f"{network.address(RELAY)}:{PORT}"
            where = f"remote.relay={address}"
            others.append(start(RELAY, ["--server", listen]))
        learner = start(LEARNER, [*_learner_words(setting), "num_workers=0", where])
        joining = [*_task_words(setting), "--worker", f"remote.address={address}"]
        others += [start(worker, joining) for worker in setting.workers]
        yield learner, others


def _task_words(setting: Setting) -> list[str]:
    return [f"task={TASK}", f"train={TASK}SAC", "task.game=sim", f"task.track={setting.track}"]


def _learner_words(setting: Setting) -> list[str]:
    own = [f"seed={setting.seed}", f"max_env_steps={setting.steps}", "experiment=trained"]
    return [*_task_words(setting), *own, *setting.words, "--headless"]


def _await_training(learner: Program, others: Sequence[Program]) -> None:
    """Waits until the first samples of workers have arrived."""
    deadline_s = time.monotonic() + 120.0
    while "steps/s" not in learner.tail():
        for program in (learner, *others):
            program.require_running()
        if time.monotonic() > deadline_s:
            raise ProgramError(f"nothing came in within two minutes:\n{learner.tail()}")
        time.sleep(_POLL_S)


def _await_end(learner: Program, others: Sequence[Program]) -> None:
    deadline_s = time.monotonic() + _LONGEST_S
    while learner.is_running:
        for program in others:
            program.require_running()
        if time.monotonic() > deadline_s:
            raise ProgramError(f"the training did not end within {_LONGEST_S:.0f} s:\n{learner.tail()}")
        time.sleep(_POLL_S)
    learner.wait(0.0)


def _outcome(
    setting: Setting,
    folder: Path,
    round_trips: dict[tuple[str, str], float | None],
    open_ports: dict[str, list[str]],
    megabytes: dict[str, tuple[float, float]],
) -> Outcome:
    (run,) = (folder / LEARNER / "runs").glob("trained_*")
    driven = _play(folder / LEARNER, run)
    newest = load_checkpoint(run / "nn" / "last.pth")
    last, best = newest.counters, load_checkpoint(run / "nn" / "best.pth").counters
    outboxes = {worker: folder / worker / "runs" / "outbox" / worker for worker in setting.workers}
    # Nothing was overwritten: the memory holds more than a training of this length makes.
    segments = account(run / "replay", newest.spec(), 2 * setting.steps + 100_000, outboxes)
    minutes = float(last["elapsed_s"]) / 60
    return Outcome(
        setting,
        int(best["env_steps"]),
        int(last["env_steps"]),
        minutes,
        driven,
        segments,
        _pace(run),
        round_trips,
        open_ports,
        megabytes,
    )


def _play(folder: Path, run: Path) -> Driven:
    """Plays ``best.pth`` and reads its results."""
    words = ["--play", "--checkpoint", str(run / "nn" / "best.pth"), "play.video=false", "play.plot=false"]
    with Program("play", words, folder) as play:
        play.wait(_LONGEST_PLAY_S)
    (file,) = run.glob("play/*/results.json")
    results = json.loads(file.read_text(encoding="utf-8"))
    finished = [episode["lap_time_s"] for episode in results["episodes"] if episode["finished"]]
    return Driven(
        len(results["episodes"]),
        len(finished),
        float(np.mean(finished)) if finished else math.nan,
        float(np.std(finished)) if finished else math.nan,
        results["scripted_lap_ratio"] if finished else math.nan,
    )


def _pace(run: Path) -> dict[str, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "summaries"), size_guidance={"scalars": 0})
    events.Reload()
    known = set(events.Tags()["scalars"])
    values = {name: [event.value for event in events.Scalars(tag)] for name, tag in _PACE_TAGS.items() if tag in known}
    means = {name: float(np.mean(series)) for name, series in values.items()}
    return means | {"repeated": values["repeated"][-1] if "repeated" in values else 0.0}
