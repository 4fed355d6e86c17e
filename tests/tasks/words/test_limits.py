"""What the annotations of a configuration class allow is what its instances take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from tasks.config import config_from_dict
from tasks.words.limits import Checked, Count, Positive, Share, Widths, between
from tasks.words.refusals import require


@dataclass
class Group(Checked):
    count: Count | None = None
    share: Share = 0.5
    rate: Positive = 1.0
    widths: Widths = field(default_factory=lambda: [8])


@dataclass
class Derived(Group):
    share: float = 0.9
    angle: Annotated[int, between(0, 360, "deg")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.angle != 90, "group.angle", self.angle, "another one")


@dataclass
class Whole:
    group: Derived = field(default_factory=Derived)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be null or >= 1, got 0"),
        ({"share": 0.0}, "share must be in (0, 1], got 0.0"),
        ({"rate": math.nan}, "rate must be > 0, got nan"),
        ({"rate": math.inf}, "rate must be > 0, got inf"),
        ({"widths": []}, "widths must be a list of at least one width >= 1, got []"),
        ({"angle": 361}, "angle must be between 0 and 360 deg, got 361"),
        ({"angle": 90}, "angle must be another one, got 90"),
    ],
)
def test_other_values_are_refused_by_full_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="whole") as caught:
        config_from_dict(Whole, {"group": values}, "whole")
    assert str(caught.value) == f"whole.group.{message}"


def test_values_within_the_limits_and_none_are_taken() -> None:
    assert Group(count=None, share=1.0, rate=1e-9, widths=[1]).count is None
    assert Derived(share=1.0, angle=360).angle == 360


def test_a_new_default_keeps_the_limits_of_the_field() -> None:
    with pytest.raises(ValueError, match="share must be"):
        Derived(share=1.1)
