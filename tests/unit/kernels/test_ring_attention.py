from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.diffusion.attention import attend
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx_kernels.ring_attention import Ring, Rows, ring_attention
from streamfx_kernels.store_frame import store_frame
from streamfx_kernels.switch import forced
from tests.unit.kernels.close import DTYPES, assert_close


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3),
    frames=st.integers(1, 2),
    tokens=st.integers(1, 21),
    heads=st.integers(1, 2),
    half=st.integers(3, 18),
    slots=st.integers(1, 3),
    kind=st.sampled_from([None, torch.int8, torch.float8_e4m3fn]),
    counted=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_the_kernel_is_its_reference(
    device: str, rows: int, frames: int, tokens: int, heads: int, half: int, slots: int, kind: torch.dtype | None,
    counted: bool, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    shape = tokens, heads, 2 * half
    query, key, value = torch.randn(3, rows, frames, *shape, generator=draw).to(device, dtype)
    held = torch.randn(2, rows + 1, slots, *shape, generator=draw).to(device, dtype)
    ring = Ring(held[0], held[1])
    if kind is not None:
        with forced("reference"):
            (keys, key_scales), (values, value_scales) = (packed(part, kind) for part in held)
        ring = Ring(keys, values, key_scales, value_scales)
    turns = Rope3D(2 * half, (1, tokens), slots + frames + 1).time_turns.to(device)
    sees = Rows(
        torch.randperm(rows + 1, generator=draw)[:rows].int().to(device),
        torch.randint(slots + 1, (rows,), generator=draw).int().to(device),
        torch.stack([torch.randperm(slots, generator=draw) for _ in range(rows)]).int().to(device),
        torch.rand(rows, slots, tokens, generator=draw).to(device) if counted else None,
    )
    with forced("reference"):
        wanted = ring_attention(query, key, value, ring, sees, turns)
    with forced("triton"):
        found = ring_attention(query, key, value, ring, sees, turns)
    assert_close(found, wanted, slack=4)


def packed(frames: torch.Tensor, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    data = torch.empty(frames.shape, device=frames.device).to(kind)
    scales = torch.empty(*frames.shape[:-1], 1, device=frames.device)
    for row in range(len(frames)):
        for slot in range(len(frames[row])):
            store_frame(frames[row, slot], data[row, slot], scales[row, slot])
    return data, scales


@pytest.mark.parametrize("which", ["reference", "triton"])
def test_it_is_attention_over_a_cache(device: str, which: str) -> None:
    """Once the ring has gone round, so that slots are not in order of time."""
    size, rope = CacheSize(2, 1, 2, 6, 2, 24), Rope3D(24, (2, 3), 4, device=device)
    cache = LayerCache(size, device=device)
    for n in range(6):
        for row in range(2 if n < 4 else 1):
            cache.append(*torch.randn(2, 6, 2, 24, device=device), row=row)
    query, key, value = torch.randn(3, 2, 1, 6, 2, 24, device=device)
    wanted = [
        attend(q, k, v, cache.past(row), rope) for row, (q, k, v) in enumerate(zip(query, key, value, strict=True))
    ]
    with forced(which):  # type: ignore[arg-type]
        found = ring_attention(query, key, value, cache.ring, cache.rows((0, 1)), rope.time_turns)
    assert_close(found, torch.stack(wanted))
