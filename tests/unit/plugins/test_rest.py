"""A face at rest is played from pictures that were drawn once, and comes back to life without a jump."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx_plugins.rest import RestLoop


class Sketch:
    """Draws a pose as its first number, and counts."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, pose: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.drawn += 1
        return np.full((2, 2, 3), round(100 * float(pose[0])), np.uint8)


def course(loop: RestLoop, sketch: Sketch, frames: range, at_rest: bool) -> list[int]:
    poses = (np.array([1 + 0.5 * np.sin(n / 10)], np.float32) for n in frames)
    return [int(loop.picture(pose, at_rest, sketch)[0, 0, 0]) for pose in poses]


@pytest.mark.parametrize("most", [2, 40])
def test_rest_is_drawn_once(most: int) -> None:
    loop, sketch = RestLoop(most), Sketch()
    course(loop, sketch, range(20), at_rest=False)
    assert sketch.drawn == 20
    shown = course(loop, sketch, range(20, 1000), at_rest=True)
    assert sketch.drawn == 20 + most
    assert len(set(shown[most:])) <= most
    # To and fro: no picture is further from the one before than it was when they were drawn.
    steps = [abs(b - a) for a, b in itertools.pairwise(shown)]
    assert max(steps) <= 6


def test_it_comes_back_without_a_jump() -> None:
    loop, sketch = RestLoop(40), Sketch()
    shown = course(loop, sketch, range(500), at_rest=True)
    shown += course(loop, sketch, range(500, 600), at_rest=False)
    steps = [abs(b - a) for a, b in itertools.pairwise(shown)]
    assert max(steps[:499]) <= 6
    assert max(steps[499:]) <= 35
    true = course(RestLoop(40), Sketch(), range(500, 600), at_rest=False)
    assert shown[540:] == true[40:]


def test_somebody_else_is_drawn_anew() -> None:
    loop, sketch = RestLoop(10), Sketch()
    course(loop, sketch, range(100), at_rest=True)
    loop.clear()
    before = sketch.drawn
    course(loop, sketch, range(100, 105), at_rest=True)
    assert sketch.drawn == before + 5
