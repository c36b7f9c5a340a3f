"""Frames to the device and back are the same by every way; what is under way at once does not mix on CUDA."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from streamfx.models.transfer import Download, Upload, download, upload
from streamfx_kernels import pixels

SIZES = [(48, 32), (17, 31), (33, 5)]


def frames_of(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size[1], size[0], 3), np.uint8)


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return "cuda"


@pytest.mark.parametrize("given", SIZES)
@pytest.mark.parametrize("wanted", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_as_the_kernels_do(given: tuple[int, int], wanted: tuple[int, int], dtype: torch.dtype) -> None:
    frames = frames_of(2, given)
    found = Upload("cpu")(frames, wanted, dtype)
    assert found.shape == (2, 3, wanted[1], wanted[0])
    assert torch.equal(found, pixels.to_network(torch.from_numpy(frames), wanted, dtype))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_back_as_the_kernels_do(size: tuple[int, int], dtype: torch.dtype) -> None:
    pictures = (2.4 * torch.rand(2, 3, size[1], size[0]) - 1.2).to(dtype)
    found = Download("cpu")(pictures)
    assert found.shape == (2, size[1], size[0], 3)
    assert found.dtype == np.uint8
    assert (found == pixels.to_frames(pictures, size).numpy()).all()


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, int]) -> None:
    frames = frames_of(3, size)
    assert (Download("cpu")(Upload("cpu")(frames, size, torch.float32)) == frames).all()


def test_frames_are_free_at_once() -> None:
    """They lie in shared memory, which is written again; and a view of every other pixel will do."""
    frames = frames_of(1, (40, 24))
    view, before = frames[:, ::2, ::2], frames[:, ::2, ::2].copy()
    on_its_way = Upload("cpu").begin(view)
    frames[:] = 0
    assert (Download("cpu")(on_its_way.pictures((20, 12), torch.float32)) == before).all()


def test_each_thread_has_its_own() -> None:
    others: list[object] = []
    thread = threading.Thread(target=lambda: others.extend((upload("cpu"), download("cpu"))))
    thread.start()
    thread.join()
    assert upload("cpu") is upload(torch.device("cpu"))
    assert upload("cpu") is not others[0]
    assert download("cpu") is not others[1]


def test_many_under_way_on_cuda(cuda: str) -> None:
    """More than there are buffers, of sizes that change, while the device is busy."""
    there, back = Upload(cuda), Download(cuda)
    busy = torch.rand(2048, 2048, device=cuda)
    blocks = [frames_of(1 + n % 3, SIZES[n % 3], seed=n) for n in range(12)]
    started = []
    for frames in blocks:
        on_its_way = there.begin(frames)
        busy = (busy @ busy).clamp(0, 1)
        size = (frames.shape[2], frames.shape[1])
        started.append(back.begin(on_its_way.pictures(size, torch.float32)))
    for frames, result in zip(blocks, started, strict=True):
        assert (result.frames() == frames).all()


def test_begin_does_not_wait_on_cuda(cuda: str) -> None:
    """The device works on the block before while the next one's copy is asked for."""
    there = Upload(cuda)
    frames = frames_of(1, (640, 360))
    for _ in range(2):  # making buffers may wait
        there(frames, (640, 360), torch.float16)
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)
    working = torch.cuda.Event()
    working.record()
    on_its_way = there.begin(frames)
    assert on_its_way.copied is not None
    on_its_way.copied.synchronize()
    assert not working.query(), "the copy went past what the device is at"
    torch.cuda.synchronize()


def test_half_on_cuda(cuda: str) -> None:
    frames = frames_of(2, (64, 48))
    found = upload(cuda)(frames, (33, 17), torch.float16)
    wanted = pixels.to_network(torch.from_numpy(frames), (33, 17), torch.float32)
    assert (found.float().cpu() - wanted).abs().max() < 4e-3
    assert download(cuda)(found).shape == (2, 17, 33, 3)
