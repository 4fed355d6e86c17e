"""The command line: parses our own flags; all other arguments go to hydra.

``train.py`` calls ``parse`` first. This module knows the roles of the program, but no configuration.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from tasks.words.habits import flag_here
from tasks.words.path_words import as_typed

EPILOG = """\
arguments for the configuration (hydra):
  task=NAME train=NAME  what is driven and how it is learned: the files of cfg/task and cfg/train
  KEY=VALUE             any key of the configuration, e.g. task.track=short max_env_steps=30000 seed=1;
                        a path is taken as the shell gives it: checkpoint="C:\\My runs\\best.pth"
  plugins=[my_file.py]  your own tasks, networks, algorithms, observers and more, registered by your file
  --cfg job             print the whole configuration instead of running; --resolve fills in references
  --multirun            one run for each combination of comma-separated values, e.g. seed=0,1,2
  --config-dir DIR      a folder of your own task/*.yaml and train/*.yaml
  --hydra-help          hydra's own help

examples:
  python train.py task=TM20Full train=TM20FullSAC
  python train.py task=TM20Lidar train=TM20LidarSAC task.track=short
  python train.py task=TM20Lidar train=TM20LidarSAC --play --checkpoint runs/RUN/nn/best.pth
  python train.py task=TM20Lidar task.game=live --check
  python train.py task=TM20Lidar task.game=live --worker remote.address=HOST:55555 remote.credentials=pc1
"""


HYDRA_FLAGS = (
    "--help",
    "--hydra-help",
    "--version",
    "--cfg",
    "--resolve",
    "--package",
    "--run",
    "--multirun",
    "--shell-completion",
    "--config-path",
    "--config-name",
    "--config-dir",
    "--info",
)
"""Hydra's long flags; --experimental-rerun is left out, because it unpickles a file."""


class Role(Enum):
    """What one process of the program does; the value is its flag."""

    train = "train"
    play = "play"
    worker = "worker"
    server = "server"
    record = "record"
    check = "check"
    benchmark = "benchmark"
    drive = "drive"
    install_plugin = "install-plugin"
    make_credentials = "make-credentials"
    calibrate = "calibrate"
    report = "report"
    import_tmrl = "import-tmrl"
    export = "export"


RUNNER_ROLES = (Role.train, Role.play)
"""Roles that rl_games' Runner runs."""
_GIVEN_WITH_A_NAME = (Role.make_credentials, Role.calibrate, Role.report, Role.import_tmrl)
ROLES_WITHOUT_CONFIGURATION = (Role.install_plugin, *_GIVEN_WITH_A_NAME)
"""What takes no word of the configuration."""

_ROLE_HELP = {
    Role.play: "drive with a trained checkpoint and write its laps, a video and a plot",
    Role.worker: "collect experience for the learner or relay at remote.address",
    Role.server: "relay between a learner and its workers, which both connect to remote.listen",
    Role.record: "record a reference path by driving once",
    Role.check: "show what the task observes and say what looks wrong",
    Role.benchmark: "measure the durations of a step",
    Role.drive: "drive the simulator by hand",
    Role.install_plugin: "copy our telemetry plugin into OpenPlanet's folder, or into the folder of --to",
}
TYPED_AS = {"record.from": "record.from_file"}
"""Keys by what is typed for them: Python lets no field be called ``from``."""
_OWN_FLAGS = (
    "--checkpoint",
    "--headless",
    "--to",
    "--make-credentials",
    "--hosts",
    "--workers",
    "--calibrate",
    "--report",
    "--import-tmrl",
    "--export",
)


@dataclass(frozen=True)
class CommandLine:
    """The parsed command line."""

    role: Role
    words: list[str] = field(default_factory=list)
    """What hydra sees; --help is among them."""
    folder: str | None = None
    """Folder given with --to, or with --make-credentials."""
    hosts: list[str] = field(default_factory=list)
    """Given with --hosts."""
    workers: list[str] = field(default_factory=list)
    """Given with --workers."""
    files: list[str] = field(default_factory=list)
    """Given with --calibrate or --import-tmrl."""
    runs: list[str] = field(default_factory=list)
    """Given with --report."""


class CommandLineError(ValueError):
    """Raised when our flags contradict each other."""


def parse(argv: Sequence[str]) -> CommandLine:
    """Takes our flags out of the command line and turns ``--checkpoint F`` and ``--headless`` into keys.

    Raises:
        CommandLineError: If two roles are asked for, a flag does not belong to the role, or two checkpoints are given.
    """
    flags, words = build_parser().parse_known_args(list(argv))
    is_sweep = "--multirun" in words or "-m" in words
    words = [as_typed(_renamed(_without_plus(word)), is_sweep=is_sweep) for word in words]
    _check_flags(words)
    role = _role(flags)
    if flags.export not in (None, "onnx"):
        raise CommandLineError(f"--export takes onnx, got {flags.export}")
    if flags.checkpoint is not None:
        words = _with_checkpoint(words, flags.checkpoint)
    if flags.headless:
        words.append("headless=true")
    if flags.help:
        words.append("--help")
    if role in ROLES_WITHOUT_CONFIGURATION and words and not flags.help:
        raise CommandLineError(f"--{role.value} takes no keys of the configuration, got {words[0]}")
    if flags.to is not None and role is not Role.install_plugin:
        raise CommandLineError("--to DIR belongs to --install-plugin")
    if (flags.hosts or flags.workers) and role is not Role.make_credentials:
        raise CommandLineError("--hosts and --workers belong to --make-credentials DIR")
    folder = flags.make_credentials or flags.to
    return CommandLine(
        role,
        _keys_first(words),
        folder,
        _names(flags.hosts),
        _names(flags.workers),
        flags.calibrate or flags.import_tmrl or [],
        flags.report or [],
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of our flags; unknown words are hydra's."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="python train.py [task=NAME] [train=NAME] [KEY=VALUE ...] [flags]",
        description="Trains a driver (the default), plays one back, or helps at the game.",
        epilog=EPILOG,
        allow_abbrev=False,
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this text and exit")
    for role, text in _ROLE_HELP.items():
        parser.add_argument(f"--{role.value}", action="store_true", help=text)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="start from this file, the newest run's (latest), or one of the repository (zoo:NAME); the same as "
        "checkpoint=FILE (see checkpoint_mode)",
    )
    parser.add_argument("--to", metavar="DIR", help="with --install-plugin: the folder to copy it into")
    parser.add_argument(
        "--make-credentials",
        metavar="DIR",
        help="make certificates and tokens for learner, relay and workers; again: for more workers or hosts",
    )
    parser.add_argument(
        "--hosts", metavar="A,B", help="with --make-credentials: names and addresses of learner and relay"
    )
    parser.add_argument("--workers", metavar="A,B", help="with --make-credentials: names of the workers")
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        nargs="+",
        help="fit the simulator's car to recordings, ghosts or replays (files or folders); writes a vehicle.yaml",
    )
    parser.add_argument(
        "--report",
        metavar="RUN",
        nargs="+",
        help="write a page about a run (its name, its folder, or latest), or about two beside each other",
    )
    parser.add_argument(
        "--import-tmrl",
        metavar="FILE",
        nargs=1,
        help="print TMRL's config.json as arguments of this command: train.py $(train.py --import-tmrl FILE)",
    )
    parser.add_argument(
        "--export",
        metavar="onnx",
        help="write the policy of a checkpoint as an .onnx file, which drives without this program and without torch",
    )
    parser.add_argument(
        "--headless", action="store_true", help="no window and no live display, plain lines; the same as headless=true"
    )
    return parser


def help_text() -> str:
    """Our flags and the words, in one text; hydra's --help adds the names of the files."""
    return build_parser().format_help() + "\n"


def _role(flags: argparse.Namespace) -> Role:
    chosen = [role for role in (*_ROLE_HELP, *_GIVEN_WITH_A_NAME, Role.export) if getattr(flags, role.name)]
    if len(chosen) > 1:
        raise CommandLineError("choose one of " + " ".join(f"--{role.value}" for role in chosen))
    return chosen[0] if chosen else Role.train


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def _check_flags(words: Sequence[str]) -> None:
    """Refuses a flag that is neither ours nor hydra's."""
    for word in words:
        name = word.partition("=")[0]
        if word.startswith("--") and name not in HYDRA_FLAGS:
            here = flag_here(name)
            if here is not None:
                raise CommandLineError(f"unknown flag {name}; here: {here}")
            ours = [*_OWN_FLAGS, *(f"--{role.value}" for role in _ROLE_HELP)]
            close = difflib.get_close_matches(name[2:], [flag[2:] for flag in (*ours, *HYDRA_FLAGS)], n=1)
            hint = f" (did you mean --{close[0]}?)" if close else ""
            raise CommandLineError(
                f"unknown flag {name}{hint}; ours: {' '.join(ours)}; hydra's: {' '.join(HYDRA_FLAGS)}; "
                "keys of the configuration are KEY=VALUE"
            )


def _with_checkpoint(words: list[str], path: str) -> list[str]:
    if not path:
        raise CommandLineError("--checkpoint needs a checkpoint: runs/RUN/nn/best.pth, latest or zoo:NAME")
    typed = [word for word in words if word.startswith("checkpoint=")]
    word = as_typed(f"checkpoint={path}", is_sweep=False)
    if any(other != word for other in typed):
        raise CommandLineError(f"--checkpoint {path} and {typed[0]} are one key; give it once")
    return [other for other in words if other not in typed] + [word]


def _keys_first(words: list[str]) -> list[str]:
    """Hydra's parser wants all KEY=VALUE words in one piece; flags may stand anywhere here."""
    keys = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    return keys + [word for word in words if word not in keys]


def _without_plus(word: str) -> str:
    for prefix in ("++plugins=", "+plugins="):
        if word.startswith(prefix):
            return word.lstrip("+")
    return word


def _renamed(word: str) -> str:
    key, sign, value = word.partition("=")
    return f"{TYPED_AS.get(key, key)}{sign}{value}"
