"""Checkpoints: one atomic file with all state of a run, loadable with ``torch.load(weights_only=True)``.

``algos.faces.agent`` and ``algos.faces.ppo`` write them, players and ``train.py`` read them. The file contains only
tensors, numbers, strings, lists and dicts; arrays are stored as tensors. The replay memory is stored in its own folder.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import platform
import random
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.experience.observation import ObservationSpec
from tasks.process.atomic_file import write_file

FORMAT = "trackmania-rl checkpoint"
FORMAT_VERSION = 1
DAMAGED = "the file is damaged: take another one of the run"
"""Advice where values of a checkpoint make no sense."""


class CheckpointError(ValueError):
    """Raised when a checkpoint file is missing, damaged, not ours or of another version; the message names the file."""


@dataclass
class Checkpoint:
    """Everything that a resumed run or a player needs."""

    algorithm: str
    """Registered name of the algorithm, such as ``remote_sac``."""
    task: str
    """Registered name of the task."""
    config: dict[str, Any]
    """The whole resolved configuration, plain data."""
    observation_spec: dict[str, Any]
    """``ObservationSpec.to_json()``."""
    policy: dict[str, Any]
    """How to act: ``function`` ("module:function"), ``kwargs``, ``weights`` (name to tensor) and their ``version``."""
    algorithm_state: dict[str, Any]
    """Networks, targets, temperature, optimisers, generators."""
    counters: dict[str, Any] = field(default_factory=dict)
    """Counts of the learner: steps, updates, episodes, versions."""
    replay: dict[str, Any] = field(default_factory=dict)
    """``position`` in the replay storage and ``rng`` of the memory; empty without a stored replay."""
    rollout: dict[str, Any] = field(default_factory=dict)
    """State of the acting side (synchronous runs), else empty."""
    rng: dict[str, Any] = field(default_factory=dict)
    """States of the global generators."""
    best: dict[str, Any] = field(default_factory=dict)
    """``score`` of the best evaluation so far and its report; empty before the first."""
    software: dict[str, str] = field(default_factory=dict)
    """Versions of what wrote the file."""

    def acting_weights(self) -> dict[str, np.ndarray]:
        """The weights that act, as arrays."""
        return {name: tensor.numpy() for name, tensor in self.policy["weights"].items()}

    def spec(self) -> ObservationSpec:
        """What was observed; equal where all of it is, unlike its plain data before and after a file.

        Raises:
            ValueError: It is damaged.
        """
        return ObservationSpec.from_json(self.observation_spec)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> Path:
    """Writes ``checkpoint`` to ``path`` at once or not at all: a reader sees the old file or the new one, never a part.

    Returns:
        The path written.

    Raises:
        OSError: It could not be written.
    """
    path = Path(path)
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **snapshot(vars(checkpoint))}
    content["software"] = content["software"] or software_versions()
    # In memory first: torch's own words for a full disk name neither the disk nor the file.
    packed = io.BytesIO()
    torch.save(content, packed)
    write_file(path, packed.getbuffer())
    return path


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint of this project or of another format version.
    """
    content = _read(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} was not written by this program, but for example by another project, or by rl_games "
            "itself (its sac, or a script), and only a script of rl_games plays those (docs/own_environments.md); give "
            "a last.pth or best.pth from a folder runs/<run>/nn"
        )
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format version {version!r}, this program reads version {FORMAT_VERSION}; "
            "use the program version that wrote it"
        )
    names = Checkpoint.__dataclass_fields__
    missing = sorted(names.keys() - content.keys())
    if missing:
        raise CheckpointError(f"checkpoint {path} is damaged: it lacks {', '.join(missing)}")
    checkpoint = Checkpoint(**{name: content[name] for name in names})
    for name in names:
        kind = str if name in ("algorithm", "task") else dict
        if not isinstance(content[name], kind):
            got = type(content[name]).__name__
            raise CheckpointError(f"checkpoint {path} is damaged: its {name} must be a {kind.__name__}, got a {got}")
    return checkpoint


def finite_weights(checkpoint: Checkpoint, path: str | Path) -> dict[str, np.ndarray]:
    """The weights that act, none of them NaN.

    Raises:
        CheckpointError: Some hold NaN, or are no tensors.
    """
    with fits(path, "any policy", "the file is damaged"):
        weights = checkpoint.acting_weights()
        spoilt = next((name for name, array in weights.items() if np.isnan(array).any()), None)
    if spoilt is not None:
        raise CheckpointError(
            f"checkpoint {path} holds NaN in the weights {spoilt}: training had failed when it was written; take an "
            "earlier one of that run"
        )
    return weights


@contextlib.contextmanager
def fits(path: str | Path, what: str, advice: str) -> Iterator[None]:
    """What is raised meanwhile, for values or tensors that the file has and this program has not, is told to the user.

    Args:
        path: The checkpoint.
        what: What it has to fit.
        advice: What to do.

    Raises:
        CheckpointError: Naming the file and the first thing that does not fit.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        # torch's first line only names the module; the next ones are about tensors.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = f"{lines[0]} is missing" if isinstance(error, KeyError) else lines[:2][-1]
        raise CheckpointError(f"checkpoint {path} does not fit {what}: {reason}; {advice}") from error


def fits_networks(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """``fits`` for a run that learns on."""
    return fits(
        path,
        "the networks of this run",
        "resume with the train.params.network and train.params.config, and the plugins, that it was trained with",
    )


def snapshot(value: Any, place: str = "checkpoint") -> Any:
    """Copies nested plain data into what a checkpoint may hold; later in-place updates do not reach the copy.

    Tensors are cloned to the CPU, arrays become tensors, tuples lists. Anything else raises with its place.

    Args:
        value: Nested data.
        place: How the place of ``value`` is called in an error.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C", copy=True))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | bytearray):
        return torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.zeros(0, dtype=torch.uint8)
    if isinstance(value, Mapping):
        return {_plain_key(key, place): snapshot(entry, f"{place}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    raise TypeError(f"{place} must be plain data or a tensor, got {type(value).__name__}")


def as_arrays(value: Any) -> Any:
    """Turns every tensor in nested data into an array: the inverse of ``snapshot`` for parts that know no torch."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, Mapping):
        return {key: as_arrays(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_arrays(entry) for entry in value]
    return copy.copy(value)


def global_rng_state() -> dict[str, Any]:
    """States of the global generators of Python, NumPy and torch, as plain data."""
    version, internal, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    state = {
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
        "numpy": snapshot(numpy_state, "rng.numpy"),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def load_global_rng_state(state: Mapping[str, Any]) -> None:
    """The inverse of ``global_rng_state``; a CUDA state is ignored when the number of devices differs."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))
    np.random.set_state(as_arrays(state["numpy"]))
    torch.set_rng_state(state["torch"])
    cuda = state.get("cuda")
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)


def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries whose behaviour a checkpoint depends on."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    for package in ("rl_games", "gymnasium", "rtgym"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def machine() -> dict[str, str]:
    """What this process runs on: system, processor, its cores, and the GPU where torch finds one."""
    facts = {"system": platform.platform(), "processor": platform.machine(), "cores": str(os.cpu_count() or "unknown")}
    return facts | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def run_directory(path: str | Path) -> Path | None:
    """The run folder that a checkpoint lies in (``<run>/nn/<file>``), or None for a file elsewhere."""
    parent = Path(path).absolute().parent
    return parent.parent if parent.name == "nn" else None


def _read(path: Path) -> Any:
    if not path.is_file():
        nearby = sorted(str(found) for found in path.parent.glob("*.pth"))[:8] if path.parent.is_dir() else []
        hint = f"; that folder has {', '.join(nearby)}" if nearby else ""
        raise CheckpointError(f"checkpoint {path} does not exist{hint}")
    try:
        _require_checksums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"checkpoint {path} ({path.stat().st_size} bytes) is damaged or not a checkpoint: {reason}"
        ) from error


def _require_checksums(path: Path) -> None:
    """The file is a zip archive whose checksums ``torch.load`` does not look at."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"its part {damaged} has a wrong checksum")


def _plain_key(key: Any, place: str) -> Any:
    if isinstance(key, str | int | bool):
        return key
    raise TypeError(f"keys of {place} must be strings or integers, got {type(key).__name__}")
