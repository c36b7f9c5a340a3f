"""Schedules against the formulas of the papers, written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.diffusion.schedules import Schedule, flow, flow_steps, lcm, lcm_indices, turbo


def test_lcm_timesteps_and_scales() -> None:
    schedule = lcm([32, 45])
    assert schedule.timesteps.tolist() == [359, 99]
    signal = 1.0
    for n in range(360):
        beta = (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * n / 999) ** 2
        signal *= 1 - beta
    assert float(schedule.alpha[0]) == pytest.approx(math.sqrt(signal), rel=1e-5)
    assert float(schedule.sigma[0]) == pytest.approx(math.sqrt(1 - signal), rel=1e-5)
    assert float(schedule.c_skip[1]) == pytest.approx(0.25 / (990.0**2 + 0.25))
    assert float(schedule.c_out[1]) == pytest.approx(990 / math.sqrt(990.0**2 + 0.25))


def test_the_boundary_gives_the_picture_back_at_no_noise() -> None:
    """At t = 0 a consistency model is the identity, whatever it predicts."""
    zero = torch.zeros(1)
    schedule = Schedule("epsilon", zero.long(), zero + 1, zero, zero + 1, zero)
    x = torch.randn(1, 4, 2, 2)
    assert torch.equal(schedule.x0(x, torch.randn_like(x), slice(0, 1)), x)


def test_flow_shift() -> None:
    schedule = flow([1000, 750, 500, 250], shift=8)
    assert schedule.sigma.tolist() == pytest.approx([1.0, 0.96, 8 / 9, 8 / 11])
    assert schedule.timesteps.tolist() == pytest.approx([1000, 960, 8000 / 9, 8000 / 11], rel=1e-6)
    assert (schedule.alpha + schedule.sigma).tolist() == pytest.approx([1.0] * 4)
    assert flow_steps(700, 4) == [700, 525, 350, 175]


SCHEDULES = [lcm([5]), lcm([22, 32, 45]), turbo(0.5), flow([700, 500, 400, 200], 8.0), flow([500], 1.0)]


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(seed=st.integers(0, 1 << 30), channels=st.integers(1, 5), side=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_a_perfect_model_finds_the_picture(schedule: Schedule, seed: int, channels: int, side: int) -> None:
    torch.manual_seed(seed)
    shape = (schedule.steps, channels, side, side)
    x0, noise = torch.randn(shape), torch.randn(shape)
    rows = slice(None)
    x = schedule.noised(x0, noise, rows)
    prediction = noise if schedule.kind == "epsilon" else noise - x0
    found = schedule.x0(x, prediction, rows)
    # The boundary of the consistency model mixes in a little of x itself: 0.25 / (10 t)² of it.
    assert torch.allclose(found, x0, atol=1e-4)
    assert torch.allclose(schedule.noise_of(x, prediction, rows), noise, atol=1e-4)
    assert torch.allclose(schedule.prediction_of(x, noise, rows), prediction, atol=1e-3)


@given(st.integers(1, 8), st.floats(0.2, 1.0))
def test_strength_maps_to_steps(steps: int, strength: float) -> None:
    indices = lcm_indices(steps, strength)
    assert len(indices) == steps
    assert indices == sorted(set(indices))
    assert indices[0] == min(49, round(50 * (1 - strength)))
    assert float(lcm(indices).sigma[0]) == pytest.approx(float(lcm(indices[:1]).sigma[0]))


def test_more_strength_is_more_noise() -> None:
    noise = [float(turbo(strength).sigma[0]) for strength in (0.1, 0.3, 0.5, 0.8, 1.0)]
    assert noise == sorted(noise)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lcm([]),
        lambda: lcm([45, 32]),
        lambda: lcm([50]),
        lambda: turbo(0),
        lambda: turbo(1.1),
        lambda: lcm_indices(20, 0.1),
        lambda: flow([250, 500]),
        lambda: flow([0]),
        lambda: flow([500], shift=0),
        lambda: flow_steps(0, 1),
    ],
)
def test_what_makes_no_schedule(make: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentences say which
        make()  # type: ignore[operator]


def test_tables_move_together() -> None:
    moved = lcm([10, 20]).to("cpu", torch.float16)
    assert {moved.alpha.dtype, moved.sigma.dtype, moved.c_skip.dtype, moved.c_out.dtype} == {torch.float16}
    assert moved.timesteps.dtype == torch.int64
