from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from streamfx.diffusion.rope import Rope3D
from streamfx_kernels.modulate import modulated_norm, normed_and_turned
from streamfx_kernels.switch import forced
from tests.unit.kernels.close import DTYPES, assert_close


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 2),
    frames=st.integers(1, 3),
    tokens=st.integers(1, 5),
    width=st.integers(2, 70),
    each=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_the_norm_is_its_reference(
    device: str, rows: int, frames: int, tokens: int, width: int, each: bool, dtype: torch.dtype, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = (1 + 2 * torch.randn(rows, frames, tokens, width, generator=draw)).to(device, dtype)
    scale, shift = torch.randn(2, rows, frames if each else 1, 1, width, generator=draw).to(device)
    with forced("reference"):
        wanted = modulated_norm(x, scale, shift)
    with forced("triton"):
        assert_close(modulated_norm(x, scale, shift), wanted, slack=5)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 2),
    frames=st.integers(1, 2),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    heads=st.integers(1, 3),
    half=st.integers(3, 17),
    together=st.booleans(),
    joint=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_norm_and_rotation_are_their_reference(
    device: str, rows: int, frames: int, grid: tuple[int, int], heads: int, half: int, together: bool, joint: bool,
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    """``joint``: queries and keys are parts of one projection's result."""
    draw, dim, tokens = torch.Generator().manual_seed(seed), 2 * half, grid[0] * grid[1]
    rope = Rope3D(dim, grid, 2)
    whole = torch.randn(rows, frames, tokens, 2 * heads * dim, generator=draw).to(device, dtype)
    query, key = (part.reshape(rows, frames, tokens, heads, dim) for part in whole.chunk(2, -1))
    if not joint:
        query, key = query.contiguous(), key.contiguous()
    weights = torch.randn(2, heads * dim if together else dim, generator=draw).to(device, dtype)
    given = query, key, *weights, rope.turns.to(device), rope.time_dim
    with forced("reference"):
        wanted = normed_and_turned(*given)
    with forced("triton"):
        found = normed_and_turned(*given)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs, slack=3)


@pytest.mark.parametrize("together", [False, True])
def test_the_reference_is_norm_and_rotation_one_after_the_other(together: bool) -> None:
    heads, dim, grid = 2, 24, (2, 3)
    rope, norm = Rope3D(dim, grid, 2), nn.RMSNorm(heads * dim if together else dim, eps=1e-6)
    nn.init.normal_(norm.weight)
    query, key = torch.randn(2, 1, 2, 6, heads, dim)
    found = normed_and_turned(query, key, norm.weight, norm.weight, rope.turns, rope.time_dim)
    for ours, x in zip(found, (query, key), strict=True):
        normed = norm(x.flatten(-2)).reshape(x.shape) if together else norm(x)
        assert torch.allclose(ours, rope.space(normed), atol=1e-5)


def test_pairs_that_do_not_fill_the_heads_are_refused() -> None:
    x = torch.zeros(1, 1, 1, 1, 8)
    with pytest.raises(ValueError, match="are not 8"):
        normed_and_turned(x, x, torch.ones(8), torch.ones(8), torch.zeros(1, 2, 2), 2)
