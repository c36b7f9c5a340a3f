"""Which output slot a picture falls to."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from streamfx.core.playout import slot_of


@pytest.mark.parametrize("jitter", [0.0, 0.0005, -0.0005])
def test_half_the_rate_takes_every_other_picture(jitter: float) -> None:
    """Timestamps in whole milliseconds are off by up to half of one."""
    slots = [slot_of(n / 30 + (jitter if n % 3 else -jitter), Fraction(15)) for n in range(300)]
    first_of_slot = [n for n in range(300) if n == 0 or slots[n] != slots[n - 1]]
    assert {b - a for a, b in pairwise(first_of_slot)} == {2}


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(60)])
def test_the_same_rate_gives_each_picture_its_own_slot(fps: Fraction) -> None:
    assert [slot_of(round(n / fps, 3), fps) for n in range(1000)] == list(range(1000))
