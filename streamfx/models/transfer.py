"""Frames to the device once and results back once: through pinned memory and on a stream of their own on CUDA, where
copying goes on while the device computes; elsewhere without more ado."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfx_kernels import pixels

_RING = 2
"""Buffers of each direction: one is filled while the other is under way."""


class Upload:
    """``(F, H, W, 3) uint8`` frames to ``(F, 3, height, width)`` in [-1, 1] on ``device``. Use it from one thread.

    ``begin`` the next block before the last is computed, and its copy costs no time.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self._lane = _Lane(self._device) if self._device.type == "cuda" else None

    def begin(self, frames: NDArray[np.uint8]) -> Uploaded:
        """Starts the copy; ``frames`` is free again."""
        if self._lane is None:
            return Uploaded(torch.from_numpy(np.array(frames)).to(self._device), None)
        slot, buffer = self._lane.next(frames.shape)
        np.copyto(buffer.numpy(), frames)
        with torch.cuda.stream(self._lane.stream):
            there = buffer.to(self._device, non_blocking=True)
            slot.copied.record()
        return Uploaded(there, slot.copied)

    def __call__(self, frames: NDArray[np.uint8], size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Copies and converts; ``size``: (width, height)."""
        return self.begin(frames).pictures(size, dtype)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Frames on their way to the device. ``copied``: happens when they are there; None: they are."""

    frames: Tensor
    copied: torch.cuda.Event | None

    def pictures(self, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """``(F, 3, height, width)`` in [-1, 1], resized on the device; ``size``: (width, height)."""
        if self.copied is not None:
            computing = torch.cuda.current_stream(self.frames.device)
            computing.wait_event(self.copied)
            # The memory was allocated for the copying stream, which knows nothing of who reads it.
            self.frames.record_stream(computing)
        return pixels.to_network(self.frames, size, dtype)


class Download:
    """``(F, 3, H, W)`` in [-1, 1] on a device to ``(F, H, W, 3) uint8`` frames here. Use it from one thread."""

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self._lane = _Lane(self._device) if self._device.type == "cuda" else None

    def begin(self, pictures: Tensor) -> Downloaded:
        """Converts on the device and starts the copy. At most two may be under way; a third waits for the first."""
        height, width = (int(side) for side in pictures.shape[-2:])
        there = pixels.to_frames(pictures, (width, height))
        if self._lane is None:
            return Downloaded(there.cpu(), None)
        slot, buffer = self._lane.next(tuple(there.shape))
        self._lane.stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._lane.stream):
            buffer.copy_(there, non_blocking=True)
            there.record_stream(self._lane.stream)
            slot.copied.record()
        slot.reader = Downloaded(buffer, slot.copied)
        return slot.reader

    def __call__(self, pictures: Tensor) -> NDArray[np.uint8]:
        """Converts and copies."""
        return self.begin(pictures).frames()


@dataclass(slots=True)
class Downloaded:
    """Results on their way here."""

    buffer: Tensor
    copied: torch.cuda.Event | None
    taken: NDArray[np.uint8] | None = None

    def frames(self) -> NDArray[np.uint8]:
        """``(F, H, W, 3) uint8``; waits until they are here."""
        if self.taken is None:
            if self.copied is None:
                self.taken = self.buffer.numpy()
            else:
                self.copied.synchronize()
                self.taken = self.buffer.numpy().copy()  # the buffer is used again
        return self.taken


@dataclass(slots=True)
class _Slot:
    """A pinned buffer. ``copied``: its last copy; ``reader``: who has still to read what came."""

    memory: Tensor
    copied: torch.cuda.Event
    reader: Downloaded | None = None


class _Lane:
    """One direction on a CUDA device: a stream, and pinned buffers that take turns."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_Slot(torch.empty(0, dtype=torch.uint8), _event()) for _ in range(_RING)]
        self._turn = 0

    def next(self, shape: tuple[int, ...]) -> tuple[_Slot, Tensor]:
        """The next buffer, free, as ``shape`` of uint8."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _RING
        slot.copied.synchronize()
        if slot.reader is not None:
            slot.reader.frames()
            slot.reader = None
        size = int(np.prod(shape))
        if slot.memory.numel() < size:
            slot.memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return slot, slot.memory[:size].view(shape)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class _Here(threading.local):
    """What each thread has of its own, by device."""

    def __init__(self) -> None:
        self.up: dict[torch.device, Upload] = {}
        self.down: dict[torch.device, Download] = {}


_here = _Here()


def upload(device: str | torch.device) -> Upload:
    """This thread's ``Upload`` to a device."""
    device = torch.device(device)
    if device not in _here.up:
        _here.up[device] = Upload(device)
    return _here.up[device]


def download(device: str | torch.device) -> Download:
    """This thread's ``Download`` from a device."""
    device = torch.device(device)
    if device not in _here.down:
        _here.down[device] = Download(device)
    return _here.down[device]
