"""Every mode makes the updates that eager makes, and is refused where the machine cannot run it.

CUDA graphs are imitated on the CPU: what a capture records is every operation below autograd, and a replay runs them
again on the same tensors, as a GPU does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from algos.algorithms.sac import SAC
from algos.algorithms.update_modes import WARM_UPS, chosen_mode
from algos.config import DebugConfig, NetworkConfig, OptimizerKind, RSACConfig, SACConfig, UpdateMode
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, random_batch
from tests.algos.algorithms.test_family_invariants import FAMILY, OBSERVATIONS, make
from tests.algos.algorithms.test_sac import snapshot

ESTIMATING = "estimating"
HOST_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default")
"""Operations whose result the host waits for."""


class RecordedGraph:
    """Stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.generators: list[torch.Generator] = []
        self.num_replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    @torch.no_grad()
    def replay(self) -> None:
        self.num_replays += 1
        for function, args, kwargs, results in self.calls:
            for old, new in zip(tensors(results), tensors(function(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # otherwise it is a view, or was written in place
                    old.copy_(new)


class Recording(TorchDispatchMode):
    """Records operations; at its end everything is as it was before, since a capture runs nothing."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self._graph = graph
        self._states = [generator.get_state() for generator in graph.generators]
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage | None]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in HOST_READS), f"{func} waits for the device"
        kwargs = kwargs or {}
        seeds = {generator.initial_seed() for generator in self._graph.generators}
        leaves = tree_leaves((args, kwargs))
        assert {leaf.initial_seed() for leaf in leaves if isinstance(leaf, torch.Generator)} <= seeds
        for tensor in tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._before:
                self._before[storage.data_ptr()] = storage, storage.clone()
        results = func(*args, **kwargs)
        for tensor in tensors(results):
            self._before.setdefault(tensor.untyped_storage().data_ptr(), (tensor.untyped_storage(), None))
        self._graph.calls.append((func, args, kwargs, results))
        return results

    def restore(self) -> None:
        for storage, content in self._before.values():
            if content is not None:
                storage.copy_(content)
        for generator, state in zip(self._graph.generators, self._states, strict=True):
            generator.set_state(state)


def tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Stream:
    """Stands for ``torch.cuda.Stream``."""

    def wait_stream(self, other: Stream) -> None:
        """Nothing runs beside anything else on the CPU."""


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Makes CUDA graphs run on the CPU; gives those that are captured."""
    captured: list[RecordedGraph] = []

    @contextmanager
    def capture(graph: RecordedGraph, **keys: object) -> Iterator[None]:
        captured.append(graph)
        recording = Recording(graph)
        with recording:
            yield
        recording.restore()

    monkeypatch.setattr("torch.cuda.CUDAGraph", RecordedGraph)
    monkeypatch.setattr("torch.cuda.graph", capture)
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
    monkeypatch.setattr("algos.algorithms.update_modes._missing_for_graph", lambda device: None)
    monkeypatch.setattr("algos.networks.images._is_for_numpy", lambda image: False)  # as on a GPU
    return captured


KEYS: dict[str, Any] = {"learn_entropy_coef": True, "lr_decay_updates": 8}


def assert_equal_updates(agents: Sequence[SAC], seeds: range, spec: Any = LIDAR) -> None:
    """The same metrics and weights, but for the rounding of a learning rate to float32."""
    for seed in seeds:
        one, two = (agent.update(random_batch(spec, 6, seed)) for agent in agents)
        expected, got = ({name: value.item() for name, value in metrics.items()} for metrics in (one, two))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)
    expected_weights, weights = (snapshot(agent) for agent in agents)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_a_graph_makes_the_updates_of_eager(name: str, graphs: list[RecordedGraph]) -> None:
    agents = [
        make(name, debug=DebugConfig(extra_metrics=True), update_mode=mode, **KEYS)
        for mode in (UpdateMode.eager, UpdateMode.graph)
    ]
    assert_equal_updates(agents, range(12))
    period = agents[0].config.actor_period
    assert len(graphs) == min(period, 2)
    assert sum(graph.num_replays for graph in graphs) == 12 - WARM_UPS * len(graphs)


def test_a_graph_shifts_images_at_random_as_eager_does(graphs: list[RecordedGraph]) -> None:
    spec, network = OBSERVATIONS["images"]
    agents = [
        make("SAC", spec, replace(network, random_shift=2), update_mode=mode)
        for mode in (UpdateMode.eager, UpdateMode.graph)
    ]
    assert_equal_updates(agents, range(WARM_UPS + 2), spec)
    assert graphs[0].num_replays == 2


def test_a_graph_estimates_what_an_asymmetric_critic_sees(graphs: list[RecordedGraph]) -> None:
    agents = [make("SAC", *asymmetric(), update_mode=mode) for mode in (UpdateMode.eager, UpdateMode.graph)]
    assert_equal_updates(agents, range(WARM_UPS + 2), asymmetric()[0])
    assert graphs[0].num_replays == 2


def asymmetric() -> tuple[ObservationSpec, NetworkConfig]:
    spec, network = OBSERVATIONS["images"]
    spec = replace(spec, fields=(*spec.fields, Field("place", (2,), privileged=True)))
    return spec, replace(network, asymmetric_critic=True)


def arguments_of(name: str) -> tuple[Any, ...]:
    """Of ``make``: an algorithm of the family, or SAC with an estimate."""
    return ("SAC", *asymmetric()) if name == ESTIMATING else (name,)


@pytest.mark.parametrize("kind", [OptimizerKind.adamw, OptimizerKind.sgd])
def test_a_graph_reads_the_learning_rates_of_other_optimizers(kind: OptimizerKind, graphs: list[RecordedGraph]) -> None:
    keys = KEYS | {"optimizer_actor": kind, "optimizer_critic": kind, "lr_decay_updates": 6}
    agents = [make("SAC", update_mode=mode, **keys) for mode in (UpdateMode.eager, UpdateMode.graph)]
    assert_equal_updates(agents, range(8))
    assert graphs[0].num_replays == 8 - WARM_UPS


def test_a_checkpoint_of_one_mode_goes_on_in_the_other(graphs: list[RecordedGraph]) -> None:
    eager, graph = (make("SAC", update_mode=mode, **KEYS) for mode in (UpdateMode.eager, UpdateMode.graph))
    for seed in range(WARM_UPS + 2):
        graph.update(random_batch(LIDAR, 6, seed))
    file = io.BytesIO()
    torch.save(graph.state_dict(), file)
    for agent in (eager, graph):
        file.seek(0)
        agent.load_state_dict(torch.load(file, weights_only=True))
    assert_equal_updates([eager, graph], range(10, 14))
    assert [g.num_replays for g in graphs] == [2, 1]


def test_a_graph_is_refused_without_a_gpu_and_what_it_cannot_capture_everywhere() -> None:
    message = r"update_mode must be auto or eager here, got graph: CUDA graphs need a GPU, and device is cpu"
    with pytest.raises(ValueError, match=message):
        make("SAC", update_mode=UpdateMode.graph)
    assert chosen_mode(UpdateMode.graph, torch.device("cuda")) is UpdateMode.graph
    with pytest.raises(ValueError, match=r"optimizer_actor must be adam, adamw or sgd with update_mode=graph"):
        SACConfig(update_mode=UpdateMode.graph, optimizer_actor=OptimizerKind.rmsprop)
    with pytest.raises(ValueError, match=r"update_mode must be auto, eager or compile: .*, got 'graph'"):
        RSACConfig(update_mode=UpdateMode.graph)


def test_compile_is_refused_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"got compile: torch.compile needs a C\+\+ compiler, and none of .*; install"):
        make("SAC", update_mode=UpdateMode.compile)
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(ValueError, match=r"my-compiler, which CXX names, is not there"):
        make("SAC", update_mode=UpdateMode.compile)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"package triton"):
        chosen_mode(UpdateMode.compile, torch.device("cuda"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_is_eager(device: str) -> None:
    assert chosen_mode(UpdateMode.auto, torch.device(device)) is UpdateMode.eager


@pytest.mark.parametrize("name", [*FAMILY, ESTIMATING])
def test_compile_hands_all_losses_to_the_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = arguments_of(name)
    calls: list[str] = []

    def compiled(function: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append(function.__name__)
            return function(*args)

        return call

    monkeypatch.setattr("torch.compile", compiled)
    monkeypatch.setattr("algos.algorithms.update_modes._missing_for_compile", lambda device: None)
    agents = [make(*made, update_mode=mode, **KEYS) for mode in (UpdateMode.eager, UpdateMode.compile)]
    assert_equal_updates(agents, range(2), *made[1:2])
    losses = ["policy_evaluation", *["estimation_loss"] * (name == ESTIMATING), "actor_loss"]
    assert calls[: len(losses)] == losses


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # of the compiler itself
@pytest.mark.parametrize(
    ("name", "backend"), [("SAC", "inductor"), *((name, "aot_eager") for name in [*FAMILY, ESTIMATING])]
)
def test_compiled_losses_make_the_updates_of_eager(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = arguments_of(name)
    compile_with = torch.compile
    monkeypatch.setattr("torch.compile", lambda function: compile_with(function, backend=backend))
    agents = [make(*made, update_mode=mode, **KEYS) for mode in (UpdateMode.eager, UpdateMode.compile)]
    assert_equal_updates(agents, range(4), *made[1:2])
