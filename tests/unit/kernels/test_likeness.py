from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from streamfx_kernels.likeness import correlation, cosine, likeness
from streamfx_kernels.switch import forced
from tests.unit.kernels.close import DTYPES, assert_close


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    dtype=st.sampled_from(DTYPES),
    planar=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_kernel_is_its_reference(
    device: str, channels: int, height: int, width: int, rows: int, columns: int, dtype: torch.dtype, planar: bool,
    seed: int,
) -> None:  # fmt: skip
    rows, columns = min(rows, height), min(columns, width)
    draw = torch.Generator().manual_seed(seed)
    frame = torch.randn(channels, height, width, generator=draw).to(device, dtype)
    if not planar:
        frame = frame.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    other = torch.randn(channels, rows, columns, generator=draw).to(device)
    with forced("reference"):
        small, sums = likeness(frame, other)
    with forced("triton"):
        small_kernel, sums_kernel = likeness(frame, other)
    assert_close(small_kernel, small)
    assert_close(sums_kernel, sums, slack=5)


@pytest.mark.parametrize("which", ["reference", "triton"])
def test_cosine_and_correlation(device: str, which: str) -> None:
    frame, other = torch.rand(3, 36, 64, device=device), torch.rand(3, 32, 32, device=device)
    with forced(which):  # type: ignore[arg-type]
        small, sums = likeness(frame, other)
    assert cosine(sums.tolist()) == pytest.approx(
        float(functional.cosine_similarity(small.flatten(), other.flatten(), 0)), abs=1e-5
    )
    wanted = np.corrcoef(small.flatten().cpu(), other.flatten().cpu())[0, 1]
    assert correlation(sums.tolist(), small.numel()) == pytest.approx(float(wanted), abs=1e-4)


def test_plain_pictures_are_alike() -> None:
    _, sums = likeness(torch.full((3, 8, 8), 0.2), torch.full((3, 4, 4), 0.7))
    assert correlation(sums.tolist(), 48) == 1
    _, sums = likeness(torch.zeros(3, 8, 8), torch.zeros(3, 4, 4))
    assert cosine(sums.tolist()) == 1
