"""The configuration of a run as typed dataclasses, and their registration as hydra schemas.

``cfg/config.yaml`` and every ``cfg/task/*.yaml`` and ``cfg/train/*.yaml`` name one of these schemas in their defaults,
so that a misspelt key or a wrong type fails by its full name. ``typed`` turns composed plain data into the dataclasses,
which is when ranges are checked. Standard library only, but for hydra's ConfigStore at use.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

from algos.config import DebugConfig
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.train_schema import REQUIRED
from tasks.config import PLAY_SEED, AnyTaskConfig, GymConfig, RCDroneConfig, TaskConfig, config_from_dict
from tasks.remote.config import Launcher, RayConfig, RemoteConfig, RemoteWorkerConfig
from tasks.roles.config import BenchmarkConfig, CheckConfig, DriveConfig, RecordConfig
from tasks.words.command_line import Role
from tasks.words.keys import (
    CONFIGURED,
    DRIVING,
    Belongs,
    Fact,
    Workers,
    acts_in,
    belongs_to,
    marked,
    needs,
    not_with,
    only_with,
    workers_have,
)
from tasks.words.limits import Amount, Checked, Count, CountOrAuto, FolderName, Limit, matching
from tasks.words.refusals import require

Seed = Annotated[int, Limit(">= 0 (none stands for a random one: a run shall be repeatable)", lambda seed: seed >= 0)]
"""Of generators."""
Device = Annotated[str, matching(r"auto|cpu|cuda(:\d+)?", "auto, cpu or cuda:N")]
"""Of torch."""

_ACTING = (Role.play, Role.worker, Role.benchmark)
"""Roles in which a policy acts and nothing learns."""


class CheckpointMode(Enum):
    """What is taken from a checkpoint."""

    resume = "resume"
    """Loads everything: the run continues."""
    weights = "weights"
    """The networks only: fine-tuning."""
    replay = "replay"
    """The stored replay only, with a new agent (TMRL's RESET_TRAINING)."""


class Rules(Enum):
    """How --play scores the episodes."""

    normal = "normal"
    league = "league"
    """The TrackMania Roborace League: 10 runs, +10 s per crash, out after three."""


@dataclass
class PlayConfig(Checked):
    """What --play does (``play``)."""

    episodes: Count = 10
    """Episodes to drive; the league's rules always take 10."""
    seed: Amount = PLAY_SEED
    """Seed of the first episode; the others follow it. Far from the seeds of training's evaluations."""
    rules: Rules = Rules.normal
    """normal or league."""
    video: bool = True
    """Whether an mp4 of the first episode is written, 1280 x 720 pixels at 30 pictures a second."""
    animation: bool = False
    """Whether the first episode is written as a small animated picture, episode.webp, of less than 2 MB."""
    plot: bool = True
    """Whether the driven line is plotted."""
    deterministic: bool = True
    """The mean action, or samples of the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_league = self.rules is Rules.league
        require(not is_league or self.episodes == 10, "episodes", self.episodes, "10 with play.rules=league")


@dataclass
class ExportConfig(Checked):
    """What --export does (``export``)."""

    to: str | None = None
    """File to write; null: beside the checkpoint, with its name and the ending .onnx."""
    steps: Count = 200
    """Steps of a simulated drive on which the file must act as the policy does."""


@dataclass
class WandbConfig:
    """Weights & Biases (``wandb``), the extra ``wandb`` of setup.py; log in with ``wandb login``."""

    enabled: bool = False
    """Whether metrics go there too."""
    project: str = field(default="trackmania-rl", metadata=needs(only_with("wandb.enabled", True)))
    """Project in your account."""
    entity: str | None = field(default=None, metadata=needs(only_with("wandb.enabled", True)))
    """User or team; null: yours."""
    run_name: str | None = field(default=None, metadata=needs(only_with("wandb.enabled", True)))
    """Name of the run; null: the run folder's."""


@dataclass
class TrackioConfig:
    """Trackio (``trackio``), the extra ``trackio``: metrics stay on this machine; ``trackio show`` draws them."""

    enabled: bool = False
    """Whether metrics go there too."""
    project: str = field(default="trackmania-rl", metadata=needs(only_with("trackio.enabled", True)))
    """Project on this machine."""
    run_name: str | None = field(default=None, metadata=needs(only_with("trackio.enabled", True)))
    """Name of the run; null: the run folder's."""


@dataclass
class LinkConfig(Checked):
    """The link between workers and learner (``link``)."""

    segment_rows: Count = field(default=32, metadata=acts_in(Role.train, Role.worker) | workers_have(Workers.same))
    """Rows that a worker sends at once."""
    window: Count = field(default=4, metadata=needs(not_with("task.game", "live"), not_with("task.clock", "wall")))
    """Unacknowledged segments beyond which a simulator worker waits."""
    buffer_segments: Count = field(default=512, metadata=acts_in(Role.train, instead={Role.worker: "worker.outbox_mb"}))
    """Unacknowledged segments that a worker in real time keeps; beyond them the oldest go (TMRL's BUFFERS_MAXLEN)."""
    compress: bool = field(default=False, metadata=acts_in(Role.train, instead={Role.worker: "worker.compress"}))
    """Whether images are compressed on the way."""


@dataclass
class ChoicesConfig:
    """Which files were chosen (``choices``): recorded in every checkpoint, set by task= and train=."""

    task: str = "${hydra:runtime.choices.task}"
    """File of cfg/task."""
    train: str = "${hydra:runtime.choices.train}"
    """File of cfg/train."""


@dataclass
class RunConfig(Checked):
    """The whole configuration: the keys of ``cfg/config.yaml``."""

    task: Any = field(default=REQUIRED, metadata=acts_in(*DRIVING) | workers_have(Workers.same))
    """What is driven: a file of cfg/task."""
    train: Any = field(default=REQUIRED, metadata=acts_in(Role.train))
    """How it is learned: a file of cfg/train."""
    seed: Seed = field(default=0, metadata=acts_in(Role.train, Role.benchmark, instead={Role.play: "play.seed"}))
    """Seed of all random generators."""
    device: Device = field(
        default="auto",
        metadata=acts_in(Role.train, instead=dict.fromkeys(_ACTING, "inference_device")) | belongs_to(Belongs.command),
    )
    """Where the learner computes: auto (cuda when there is one), cpu or cuda:N."""
    inference_device: Device = field(
        default="cpu", metadata=acts_in(Role.train, *_ACTING) | belongs_to(Belongs.command)
    )
    """Where workers and players compute: auto, cpu or cuda:N."""
    torch_threads: CountOrAuto = field(
        default="auto", metadata=acts_in(Role.train, Role.play) | belongs_to(Belongs.command)
    )
    """Threads of the learner's torch; auto on the CPU: 1 or, where the first updates of a training show that it is
    faster, as many as workers leave cores; torch's own number with cuda."""
    experiment: FolderName = field(
        default="${choices.train}", metadata=acts_in(Role.train, instead={Role.record: "record.name"})
    )
    """Name of the run folder, runs/<experiment>_<date>; default: the name of the train YAML."""
    checkpoint: str | None = field(default=None, metadata=acts_in(*DRIVING) | belongs_to(Belongs.command))
    """File to start from, ``latest`` or ``zoo:NAME``; the same as --checkpoint."""
    checkpoint_mode: CheckpointMode = field(
        default=CheckpointMode.resume, metadata=acts_in(Role.train) | belongs_to(Belongs.command)
    )
    """resume, weights or replay."""
    max_env_steps: CountOrAuto = field(
        default="auto",
        metadata=acts_in(Role.train, instead={Role.worker: "worker.episodes", Role.benchmark: "benchmark.steps"}),
    )
    """Environment steps at which training ends by itself; auto: the train YAML's."""
    max_updates: Count | None = field(default=None, metadata=acts_in(Role.train))
    """Updates at which training ends by itself, where that comes first; null: no such limit. Not for PPO."""
    num_workers: Amount = field(
        default=1,
        metadata=acts_in(Role.train, instead={Role.worker: "worker.envs_per_worker"})
        | needs(not_with("synchronous", True)),
    )
    """Worker processes that the learner starts; 0: none, all are remote (remote.listen or remote.relay)."""
    launcher: Launcher = field(default=Launcher.local, metadata=acts_in(Role.train) | belongs_to(Belongs.command))
    """What starts them: local (this machine) or ray (a cluster)."""
    synchronous: bool = field(default=False, metadata=acts_in(Role.train))
    """Act and learn in turn in one process: exact ratio, bit-reproducible."""
    headless: bool = field(default=False, metadata=acts_in(*CONFIGURED) | belongs_to(Belongs.command))
    """No window and no live display; the same as --headless."""
    plugins: list[str] = field(
        default_factory=list, metadata=acts_in(*CONFIGURED) | belongs_to(Belongs.command) | workers_have(Workers.same)
    )
    """Your own Python files, loaded before names are looked up."""
    observers: list[str] = field(default_factory=list, metadata=acts_in(Role.train) | belongs_to(Belongs.learning))
    """Registered names or "module:Class" of rl_games AlgoObservers."""
    wandb: WandbConfig = field(default_factory=WandbConfig, metadata=acts_in(Role.train) | belongs_to(Belongs.command))
    """Weights & Biases."""
    trackio: TrackioConfig = field(
        default_factory=TrackioConfig, metadata=acts_in(Role.train) | belongs_to(Belongs.command)
    )
    """Trackio."""
    play: PlayConfig = field(default_factory=PlayConfig, metadata=acts_in(Role.train, Role.play))
    """What --play does; typed in training it is stored, and --play of its checkpoints does it."""
    export: ExportConfig = field(
        default_factory=ExportConfig, metadata=acts_in(Role.export) | belongs_to(Belongs.command)
    )
    """What --export does."""
    record: RecordConfig = field(
        default_factory=RecordConfig,
        metadata=acts_in(Role.record, Role.drive) | needs(only_with("drive.record", True, roles=(Role.drive,))),
    )
    """What --record does."""
    drive: DriveConfig = field(default_factory=DriveConfig, metadata=acts_in(Role.drive))
    """What --drive does."""
    check: CheckConfig = field(
        default_factory=CheckConfig, metadata=acts_in(Role.check) | needs(only_with("headless", True))
    )
    """What --check does."""
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig, metadata=acts_in(Role.benchmark))
    """What --benchmark does."""
    link: LinkConfig = field(
        default_factory=LinkConfig,
        metadata=acts_in(Role.train) | needs(not_with("synchronous", True), not_with("train.kind", "ppo")),
    )
    """Settings of the link between workers and learner."""
    remote: RemoteConfig = field(
        default_factory=RemoteConfig,
        metadata=acts_in(Role.train, Role.worker, Role.server) | belongs_to(Belongs.command),
    )
    """The link beyond this machine."""
    worker: RemoteWorkerConfig = field(
        default_factory=RemoteWorkerConfig, metadata=acts_in(Role.worker) | belongs_to(Belongs.command)
    )
    """Settings of --worker and of every worker process."""
    ray: RayConfig = field(
        default_factory=RayConfig,
        metadata=acts_in(Role.train) | needs(only_with("launcher", "ray")) | belongs_to(Belongs.command),
    )
    """Where Ray places workers, with launcher=ray."""
    profile: bool = field(default=False, metadata=acts_in(Role.train) | belongs_to(Belongs.command))
    """Write a trace of updates 51 to 100 of this command into the run folder. Not for PPO."""
    debug: DebugConfig = field(default_factory=DebugConfig, metadata=acts_in(Role.train))
    """Checks that cost time."""
    choices: ChoicesConfig = field(default_factory=ChoicesConfig, metadata=acts_in())
    """Which files were chosen; recorded, not to be set."""


TASK_SCHEMAS: dict[str, type[AnyTaskConfig]] = {
    "trackmania": TaskConfig,
    "rc_drone": RCDroneConfig,
    "gym": GymConfig,
}
"""Schema of ``task`` by the name that a file of cfg/task gives in its defaults."""


def marked_keys(kind: type[Fact]) -> dict[str, Fact]:
    """Full names of all keys that say something of a kind (``tasks.words.keys.marked``), with what they say.

    Those of all registered schemas together: which of them a configuration has, the configuration knows.
    """
    found = dict(marked(RunConfig, kind))
    for group, schemas in (("task", TASK_SCHEMAS), ("train", TRAIN_SCHEMAS)):
        for schema in schemas.values():
            found |= marked(schema, kind, f"{group}.")
    return found


def nearest(marks: Mapping[str, Fact], key: str) -> Fact | None:
    """The metadata of a key, or of the nearest group above it; None: there is none."""
    while key and key not in marks:
        key = key.rpartition(".")[0]
    return marks.get(key)


def register_schemas() -> None:
    """Stores the schemas where the YAML files look for them: /schema, /schema/task and /schema/train."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    groups: dict[str, Mapping[str, object]] = {
        "schema": {"run": RunConfig},
        "schema/task": TASK_SCHEMAS,
        "schema/train": TRAIN_SCHEMAS,
    }
    for group, schemas in groups.items():
        for name, schema in schemas.items():
            store.store(group=group, name=name, node=_structured(schema))


def typed(plain: Mapping[str, object], task_type: type = TaskConfig) -> RunConfig:
    """Checks a whole configuration, types and ranges, and returns it as dataclasses.

    Args:
        plain: Plain data as composed or as stored in a checkpoint.
        task_type: The dataclass of the task, as registered.

    Raises:
        ValueError: With the full name of the key, what was given and what is expected.
    """
    task: Any = config_from_dict(task_type, _section(plain, "task"), "task")
    train = typed_train(_section(plain, "train"))
    return config_from_dict(RunConfig, {**plain, "task": task, "train": train}, "")


def typed_train(plain: Mapping[str, object]) -> Any:
    """The ``train`` section as the dataclass of its kind; plain data when it has none."""
    algorithm_name(plain)
    kind = plain.get("kind")
    if kind is None:
        return dict(plain)
    schema = TRAIN_SCHEMAS.get(str(kind))
    if schema is None:
        raise ValueError(
            f"train.kind must be one of {', '.join(TRAIN_SCHEMAS)}, or left out, got {kind!r}; "
            "one of your own needs plugins=[FILE.py]"
        )
    return config_from_dict(schema, plain, "train")


def algorithm_name(train: Mapping[str, object]) -> str:
    """``params.algo.name`` of a train section.

    Raises:
        ValueError: If there is none.
    """
    params = train.get("params")
    algo = params.get("algo") if isinstance(params, Mapping) else None
    name = algo.get("name") if isinstance(algo, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(
            "train.params.algo.name must name the algorithm; the train YAML needs a base, e.g. defaults: [SAC, _self_]"
        )
    return name


@functools.cache
def _structured(schema: type) -> Any:
    """The dataclass as an OmegaConf object. Making it is slow, and hydra copies what it is given."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _section(plain: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = plain.get(name)
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} must be a mapping, got {section!r}")
    return section
