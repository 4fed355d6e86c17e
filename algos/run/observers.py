"""rl_games' AlgoObservers by name: a plugin registers its own, and all of ``observers=[...]`` see every hook.

``train.py`` makes the one observer that the Runner takes. Duck-typed, so that rl_games is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tasks.words.references import resolve

_OBSERVERS: dict[str, str] = {}


def add_observer(name: str, observer: str) -> None:
    """Adds an observer, for ``observers=[name]``.

    Args:
        name: A name that is not taken.
        observer: ``module:Class`` of an rl_games AlgoObserver, built without arguments.
    """
    if _OBSERVERS.get(name, observer) != observer:
        raise ValueError(f"the observer name {name!r} is taken by {_OBSERVERS[name]}; choose another one")
    _OBSERVERS[name] = observer


def make_observer(names: Iterable[str]) -> ObserverGroup | None:
    """The observer for ``Runner(algo_observer)``: all that are named, or None for rl_games' own.

    Args:
        names: Registered names, or "module:Class".

    Raises:
        ValueError: If a name is not registered or its class does not exist.
    """
    observers = [observer_class() for observer_class in observer_classes(names)]
    return ObserverGroup(observers) if observers else None


def observer_classes(names: Iterable[str]) -> list[Callable[[], object]]:
    """The classes of the observers that are named; raises as ``make_observer`` does."""
    return [_find(name) for name in names]


class ObserverGroup:
    """Passes every hook of rl_games' AlgoObserver on to several observers, in order.

    Args:
        observers: What is called; an observer may leave hooks out.
    """

    def __init__(self, observers: Sequence[object]) -> None:
        self.observers = tuple(observers)

    def before_init(self, base_name: str, config: Mapping[str, object], experiment_name: str) -> None:
        """Before the agent is built."""
        self._call("before_init", base_name, config, experiment_name)

    def after_init(self, algo: object) -> None:
        """When the agent is built."""
        self._call("after_init", algo)

    def process_infos(self, infos: object, done_indices: object) -> None:
        """When episodes ended."""
        self._call("process_infos", infos, done_indices)

    def after_steps(self) -> None:
        """After new samples."""
        self._call("after_steps")

    def after_clear_stats(self) -> None:
        """When averages are cleared."""
        self._call("after_clear_stats")

    def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
        """After metrics were recorded."""
        self._call("after_print_stats", frame, epoch_num, total_time)

    def _call(self, hook: str, *args: object) -> None:
        for observer in self.observers:
            function = getattr(observer, hook, None)
            if function is not None:
                function(*args)


def _find(name: str) -> Callable[[], object]:
    place = name if ":" in name else _OBSERVERS.get(name)
    if place is None:
        known = ", ".join(_OBSERVERS) or "none registered"
        raise ValueError(f"observers: unknown {name!r}; known: {known}; or give 'module:Class'")
    return resolve(place, "observers")
