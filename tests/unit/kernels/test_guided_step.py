from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.diffusion.schedules import flow, lcm
from streamfx_kernels.guided_step import Kind, Mode, guided_step
from streamfx_kernels.switch import forced
from tests.unit.kernels.close import DTYPES, assert_close

SCHEDULES = {"epsilon": lcm([22, 32, 45]), "flow": flow([900, 500, 200])}


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    shape=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(["epsilon", "flow"]),
    mode=st.sampled_from(["none", "full", "residual"]),
    finished=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_kernel_is_its_reference(
    device: str,
    rows: int,
    shape: list[int],
    dtype: torch.dtype,
    kind: Kind,
    mode: Mode,
    finished: bool,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, said, other = (torch.randn(rows, *shape, generator=draw).to(device, dtype) for _ in range(3))
    noise = torch.randn(rows - finished, *shape, generator=draw).to(device, dtype)
    coefficients = SCHEDULES[kind].coefficients[:rows].to(device)
    results = []
    for which in ("reference", "triton"):
        with forced(which):
            results.append(
                guided_step(
                    x,
                    said,
                    None if mode == "none" else other,
                    noise if mode == "residual" else None,
                    coefficients,
                    kind,
                    mode,
                    1.4,
                    0.8,
                )
            )
    (clean, following), (clean_kernel, following_kernel) = results
    assert_close(clean_kernel, clean)
    assert (following is None) == (mode != "residual")
    if following is not None and following_kernel is not None:
        assert_close(following_kernel, following)


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_it_is_guidance_and_schedule_one_after_the_other(kind: Kind) -> None:
    schedule, rows = SCHEDULES[kind], torch.arange(3)
    x, said, other, noise = torch.randn(4, 3, 2, 4, 5, 6)
    table = schedule.coefficients
    found, _ = guided_step(x, said, None, None, table, kind, "none")
    assert torch.allclose(found, schedule.x0(x, said, rows), atol=1e-5)
    found, _ = guided_step(x, said, other, None, table, kind, "full", 1.7)
    assert torch.allclose(found, schedule.x0(x, other + 1.7 * (said - other), rows), atol=1e-5)
    found, residual = guided_step(x, said, other, noise[:2], table, kind, "residual", 1.7, 0.6)
    guided = 0.6 * other + 1.7 * (schedule.noise_of(x, said, rows) - 0.6 * other)
    assert torch.allclose(found, schedule.x0(x, schedule.prediction_of(x, guided, rows), rows), atol=1e-4)
    # What the step makes of the residual noise alone is how far it moves the latent off its source.
    alone = schedule.sigma.reshape(3, 1, 1, 1, 1) * other
    moved = schedule.x0(alone, schedule.prediction_of(alone, guided, rows), rows)
    wanted = noise[:2] + (schedule.alpha / schedule.sigma)[1:].reshape(2, 1, 1, 1, 1) * moved[:2]
    assert residual is not None
    assert torch.allclose(residual, wanted, atol=1e-4)


def test_what_does_not_go_together_is_refused() -> None:
    x = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="does not go with"):
        guided_step(x, x, None, None, torch.ones(1, 5), "flow", "full")
