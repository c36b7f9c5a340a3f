"""From speech to a mouth, as it streams: a causal convolutional network and what keeps its past.

The network is a TCN in three tempos, 100, 50 and 25 Hz. No convolution is padded: each asks for the frames that it
needs, so a stream that keeps the last few frames of every layer computes exactly what a training on long clips
computes, and only the newest frames cost anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from streamfx.models.avatar import logmel
from streamfx.models.avatar.coefficients import FPS, MOUTH
from streamfx.models.avatar.visemes import VISEMES

FRAMES = 4
"""Log-mel frames for each row: 100 Hz to 25 Hz."""

AHEAD = 9
"""Row k is computed when frame ``4 k + AHEAD`` is there."""

LOOKAHEAD = AHEAD * logmel.HOP + logmel.WINDOW - logmel.RATE // FPS // 2
"""Samples after a row's time that it waits for: 95 ms. A stream of 40 ms pieces gives a row 100 ms after its time."""

_NEEDED = (FRAMES - 1) * logmel.HOP + logmel.WINDOW

RING_S = 8.0
"""Temporal audio context cache, after SoulX-FlashHead (arXiv 2602.07449): how far back a stream remembers loudness."""


@dataclass(frozen=True, slots=True)
class SpeechSize:
    fine: int = 64
    """Channels at 100 Hz."""
    middle: int = 96
    """At 50 Hz."""
    wide: int = 144
    """At 25 Hz."""
    inner: int = 192
    """Inside a block at 25 Hz."""
    middle_dilations: tuple[int, ...] = (1, 2)
    wide_dilations: tuple[int, ...] = (1, 2, 4, 6, 1, 2)


class Heard(NamedTuple):
    mouth: Tensor
    """``(B, M, 7)`` in [0, 1], in the order of ``MOUTH``."""
    visemes: Tensor
    """``(B, M, 15)``: logits, in the order of ``VISEMES``."""


class Taps(nn.Module):
    """A convolution without padding, over ``(B, T, C)``: frames t, t - dilation, … side by side, times a matrix."""

    def __init__(self, channels: int, out: int, taps: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * taps, out)
        self._taps, self._dilation, self._stride = taps, dilation, stride
        self.kept = (taps - 1) * dilation + 1 - stride
        """Frames of the past that the next ones need."""

    def forward(self, x: Tensor) -> Tensor:
        span = x.shape[1] - (self._taps - 1) * self._dilation
        begins = range(0, self._taps * self._dilation, self._dilation)
        return self.linear(torch.cat([x[:, at : at + span : self._stride] for at in begins], -1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A residual layer of three taps."""

    def __init__(self, channels: int, inner: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.taps = Taps(channels, inner, 3, dilation)
        self.out = nn.Linear(inner, channels)
        self.kept = self.taps.kept

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.kept :] + self.out(functional.silu(self.taps(self.norm(x))))  # type: ignore[no-any-return]


class Step(nn.Module):
    """To the next tempo."""

    def __init__(self, channels: int, out: int, taps: int, stride: int) -> None:
        super().__init__()
        self.taps = Taps(channels, out, taps, stride=stride)
        self.norm = nn.LayerNorm(out)
        self.kept = self.taps.kept

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.taps(x)))


class Speech(nn.Module):
    """Log-mel features to mouths and visemes, four frames to a row."""

    def __init__(self, size: SpeechSize | None = None) -> None:
        super().__init__()
        self.size = size = size or SpeechSize()
        layers: list[Block | Step] = [Step(logmel.BANDS, size.fine, 5, 1), Step(size.fine, size.middle, 4, 2)]
        layers += [Block(size.middle, size.middle, dilation) for dilation in size.middle_dilations]
        layers += [Step(size.middle, size.wide, 4, 2)]
        layers += [Block(size.wide, size.inner, dilation) for dilation in size.wide_dilations]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(size.wide)
        self.mouth = nn.Linear(size.wide, len(MOUTH))
        self.visemes = nn.Linear(size.wide, len(VISEMES))
        self.kept = tuple(layer.kept for layer in layers)
        tempos = [1, 1] + [2] * (len(size.middle_dilations) + 1) + [4] * len(size.wide_dilations)
        self.past = sum(kept * tempo for kept, tempo in zip(self.kept, tempos, strict=True))
        """Frames before the first row's four."""

    def forward(self, features: Tensor) -> Heard:
        """``(B, past + 4 M, 64)`` to M rows."""
        x = features
        for layer in self.layers:
            x = layer(x)
        return self._heard(x)

    def step(self, features: Tensor, state: list[Tensor]) -> Heard:
        """The next rows from ``(B, 4 M, 64)`` alone; ``state``, by ``fresh``, is what layers keep, and is changed."""
        x = features
        for at, layer in enumerate(self.layers):
            x = torch.cat((state[at], x), 1)
            state[at] = x[:, x.shape[1] - self.kept[at] :]
            x = layer(x)
        return self._heard(x)

    def fresh(self) -> list[Tensor]:
        """The state after silence that has been for ever."""
        x = self.norm.weight.new_full((1, self.past + FRAMES, logmel.BANDS), -1.0)
        state = []
        for layer, kept in zip(self.layers, self.kept, strict=True):
            state.append(x[:, x.shape[1] - kept :])
            x = layer(x)
        return state

    def _heard(self, x: Tensor) -> Heard:
        x = self.norm(x)
        return Heard(self.mouth(x).sigmoid(), self.visemes(x))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices of a few rows gain nothing from a second core, and lose up to half a second where it is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class SpeechStream:
    """Samples in as they come, rows out as soon as they can be told.

    Row k stands at (k + 0.5) / 25 s after the first sample and is given once ``LOOKAHEAD`` samples after that are
    there. What a row is does not depend on how the samples were cut. Before the first sample there was silence.
    """

    def __init__(self, network: Speech) -> None:
        self._network = network
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        """Begins again, at row 0."""
        self.rows = 0
        """How many rows have been given."""
        with _one_thread():
            self._state = self._network.fresh()
        self._ring = logmel.silence(int(RING_S * logmel.RATE / logmel.HOP))
        # Row 0 comes of the four frames up to AHEAD. What is before goes by fours into the past, so it begins early.
        before = AHEAD + 1 - FRAMES
        self._early = -(-before // FRAMES)
        self._waiting = np.zeros((self._early * FRAMES - before) * logmel.HOP, np.float32)

    @torch.inference_mode()
    def push(self, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``(N,) float32`` at 16 kHz in [-1, 1], of any length. Gives ``(M, 7)`` mouth coefficients and ``(M, 15)``
        probabilities of visemes, both ``float32``; M may be 0.

        Raises ``ValueError`` if the samples are not a row of numbers.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"samples have the shape {samples.shape}; mix them to one channel, (N,)")
        self._waiting = np.concatenate((self._waiting, np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)))
        mouths, visemes = [], []
        with _one_thread():
            while len(self._waiting) >= _NEEDED:
                heard = self._hear(torch.from_numpy(self._waiting[:_NEEDED]))
                self._waiting = self._waiting[FRAMES * logmel.HOP :]
                if self._early:
                    self._early -= 1
                    continue
                mouths.append(heard.mouth[0])
                visemes.append(heard.visemes[0].softmax(-1))
        if not mouths:
            return np.zeros((0, len(MOUTH)), np.float32), np.zeros((0, len(VISEMES)), np.float32)
        self.rows += len(mouths)
        return torch.cat(mouths).numpy(), torch.cat(visemes).numpy()

    def _hear(self, samples: Tensor) -> Heard:
        """The next four frames. Never more at once, for longer sums are rounded otherwise."""
        mels = logmel.powers(samples)
        self._ring = torch.cat((self._ring[len(mels) :], logmel.loudness(mels)))
        level = logmel.levels(self._ring[-(logmel.LEVELS + len(mels)) :])
        return self._network.step(logmel.features(mels, level)[None], self._state)
