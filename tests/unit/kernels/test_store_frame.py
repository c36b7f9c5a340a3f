from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx_kernels.store_frame import LARGEST, store_frame
from streamfx_kernels.switch import forced
from tests.unit.kernels.close import DTYPES


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.integers(1, 21),
    heads=st.integers(1, 3),
    dim=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(list(LARGEST)),
    size=st.sampled_from([0.0, 1e-3, 1.0, 300.0]),
    seed=st.integers(0, 99),
)
def test_the_kernel_is_its_reference(
    device: str, tokens: int, heads: int, dim: int, dtype: torch.dtype, kind: torch.dtype, size: float, seed: int
) -> None:
    value = (size * torch.randn(tokens, heads, dim, generator=torch.Generator().manual_seed(seed))).to(device, dtype)
    slots = [torch.full((2, tokens, heads, dim), 3.0).to(device, kind) for _ in range(2)]
    scales = [torch.full((2, tokens, heads, 1), 3.0, device=device) for _ in range(2)]
    for which, slot, scale in zip(("reference", "triton"), slots, scales, strict=True):
        with forced(which):
            store_frame(value, slot[1], scale[1])
    assert (slots[1][0].float() == 3).all(), "other slots stay as they are"
    assert torch.allclose(scales[0], scales[1], rtol=1e-6)
    steps = (slots[0].float() - slots[1].float()).abs()
    # A quotient on the border of two steps may fall to either side of it; a step of fp8 is a sixteenth of its value.
    assert float((steps / slots[0].float().abs().clamp_min(1)).max()) <= (1 if kind is torch.int8 else 1 / 8)
    assert float((steps > 0).float().mean()) < 0.01


@pytest.mark.parametrize(("kind", "error"), [(torch.int8, 1 / 254), (torch.float8_e4m3fn, 1 / 16)])
@pytest.mark.parametrize("which", ["reference", "triton"])
def test_what_is_stored_is_what_was_given(device: str, which: str, kind: torch.dtype, error: float) -> None:
    value = torch.randn(9, 2, 24, generator=torch.Generator().manual_seed(1)).to(device)
    slot, scale = torch.zeros(9, 2, 24, device=device).to(kind), torch.zeros(9, 2, 1, device=device)
    with forced(which):  # type: ignore[arg-type]
        store_frame(value, slot, scale)
    assert ((slot.float() * scale - value).abs() <= 1.01 * error * value.abs().amax(-1, keepdim=True)).all()


def test_a_slot_of_more_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="eight bits"):
        store_frame(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.zeros(1, 1, 1))
