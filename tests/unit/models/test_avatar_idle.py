"""A face that nobody drives is alive: it blinks, breathes and moves, smoothly and for ever."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.models.avatar.coefficients import FACE
from streamfx.models.avatar.idle import Idle

FPS = 25


def poses(
    seed: int, seconds: float, loudness: float = 0.0, speaking: bool = False, start: float = 0.0, motion: float = 1.0
) -> NDArray[np.float32]:
    """``(N, 10)``."""
    idle = Idle(seed)
    moments = start + np.arange(round(seconds * FPS)) / FPS
    return np.stack([idle.pose(float(moment), loudness, speaking, motion) for moment in moments])


def column(found: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return found[:, FACE.index(name)]


def test_it_is_the_same_for_a_seed_and_differs_between_seeds() -> None:
    np.testing.assert_array_equal(poses(3, 20), poses(3, 20))
    assert np.abs(poses(3, 20) - poses(4, 20)).max() > 0.1


def test_it_blinks_as_people_do() -> None:
    lids = column(poses(1, 600), "blink_left")
    shut = lids > 0.8
    blinks = int(np.count_nonzero(shut[1:] & ~shut[:-1]))
    assert 10 * 9 < blinks < 10 * 30  # 9 to 30 a minute
    assert np.mean(lids > 0.1) < 0.12


def test_it_breathes_and_moves_without_jumps() -> None:
    found = poses(2, 120)
    for name in ("yaw", "pitch", "roll"):
        course = column(found, name)
        assert 0.05 < np.abs(course).max() < 0.5
        assert np.abs(np.diff(course)).max() < 0.03
    breath = column(found, "breath")
    turns = np.count_nonzero((breath[1:] > 0) & (breath[:-1] <= 0))
    assert turns == pytest.approx(120 / 3.9, abs=1.5)


def test_speaking_makes_it_livelier() -> None:
    still, lively = poses(5, 120), poses(5, 120, 0.6, True)
    assert column(lively, "yaw").std() > 1.4 * column(still, "yaw").std()


def test_a_stressed_word_is_nodded_to() -> None:
    idle, moments = Idle(0), np.arange(100) / FPS
    quiet = [idle.pose(float(moment), 0.2, True) for moment in moments]
    loud = [idle.pose(float(4 + moment), 0.9, True) for moment in moments[:10]]
    assert loud[5][FACE.index("brow_up")] > quiet[-1][FACE.index("brow_up")] + 0.1


def test_no_motion_keeps_the_head_still_but_not_the_lids() -> None:
    found = poses(6, 60, motion=0.0)
    assert not column(found, "yaw").any()
    assert column(found, "blink_left").max() > 0.9


def test_hours_cost_what_seconds_cost() -> None:
    late = poses(7, 30, start=10 * 3600.0)
    assert np.abs(late).max() <= 1
    assert column(poses(7, 60, start=10 * 3600.0), "blink_left").max() > 0.9
    # A stream that stood still for a day goes on at once.
    idle = Idle(7)
    idle.pose(0.0, 0, False)
    assert np.isfinite(idle.pose(86_400.0, 0, False)).all()
