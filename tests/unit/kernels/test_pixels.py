from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from streamfx_kernels.pixels import Matrix, nv12_to_network, to_frames, to_network, to_nv12
from streamfx_kernels.switch import Mode, forced
from tests.unit.kernels.close import DTYPES, assert_close

sizes = st.tuples(st.integers(3, 11), st.integers(3, 11))
halves = st.tuples(st.integers(2, 5), st.integers(2, 5))


def near(found: Tensor, wanted: Tensor) -> None:
    """Bytes that may fall to either side of a half."""
    apart = (found.int() - wanted.int()).abs()
    assert found.shape == wanted.shape
    assert int(apart.max()) <= 1
    assert float((apart > 0).float().mean()) < 0.02 + 1.5 / apart.numel()


@settings(max_examples=8, deadline=None)
@given(given_size=sizes, wanted=sizes, count=st.integers(1, 2), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_frames_by_kernel_and_reference(
    device: str, given_size: tuple[int, int], wanted: tuple[int, int], count: int, dtype: torch.dtype, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (count, *given_size, 3), generator=draw, dtype=torch.uint8).to(device)
    pictures = (2.4 * torch.rand(count, 3, *given_size, generator=draw) - 1.2).to(device, dtype)
    with forced("reference"):
        into, back = to_network(frames, wanted, dtype), to_frames(pictures, wanted)
    with forced("triton"):
        assert_close(to_network(frames, wanted, dtype), into)
        near(to_frames(pictures, wanted), back)


@settings(max_examples=8, deadline=None)
@given(given_size=halves, wanted=halves, matrix=st.sampled_from(["bt709", "bt601"]), seed=st.integers(0, 99))
def test_nv12_by_kernel_and_reference(
    device: str, given_size: tuple[int, int], wanted: tuple[int, int], matrix: Matrix, seed: int
) -> None:
    draw, size = torch.Generator().manual_seed(seed), (2 * wanted[0], 2 * wanted[1])
    luma = torch.randint(256, (2, 2 * given_size[0], 2 * given_size[1]), generator=draw, dtype=torch.uint8).to(device)
    chroma = torch.randint(256, (2, *given_size, 2), generator=draw, dtype=torch.uint8).to(device)
    pictures = (2 * torch.rand(2, 3, *given_size, generator=draw) - 1).to(device)
    with forced("reference"):
        into, back = nv12_to_network(luma, chroma, size, torch.float32, matrix), to_nv12(pictures, size, matrix)
    with forced("triton"):
        assert_close(nv12_to_network(luma, chroma, size, torch.float32, matrix), into)
        for ours, theirs in zip(to_nv12(pictures, size, matrix), back, strict=True):
            near(ours, theirs)


@pytest.mark.parametrize("size", [(8, 6), (17, 31), (40, 9)])
def test_resizing_is_that_of_torch(size: tuple[int, int]) -> None:
    frames = torch.randint(256, (2, 20, 24, 3), dtype=torch.uint8)
    pixels = frames.permute(0, 3, 1, 2).float()
    wanted = functional.interpolate(pixels, (size[1], size[0]), mode="bilinear", antialias=True)
    assert torch.allclose((to_network(frames, size, torch.float32) + 1) * 127.5, wanted, atol=1e-3)


def smooth(side: int) -> np.ndarray:
    """A picture without edges, on which ways to resample chroma differ little."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    return np.stack([255 * rows, 255 * columns, 127 + 100 * np.sin(3 * rows + 2 * columns)], -1).astype(np.uint8)


@pytest.mark.parametrize("mode", ["reference", "triton"])
def test_nv12_is_that_of_ffmpeg(mode: Mode) -> None:
    picture = smooth(32)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
        format="nv12", dst_colorspace="ITU709", dst_color_range="MPEG"
    )
    theirs = frame.to_ndarray()
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    with forced(mode):
        luma, chroma = to_nv12(tensor, (32, 32))
        again = nv12_to_network(luma, chroma, (32, 32), torch.float32)
    assert np.abs(theirs[:32].astype(int) - luma[0].numpy()).max() <= 2
    assert np.abs(theirs[32:].reshape(16, 16, 2).astype(int) - chroma[0].numpy()).max() <= 4
    assert float((again - tensor).abs().mean()) * 127.5 < 3


def test_odd_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="both sides have to be even"):
        to_nv12(torch.zeros(1, 3, 4, 4), (5, 4))
