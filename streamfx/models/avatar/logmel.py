"""What the speech network hears: log-mel frames at 100 Hz, told relative to how loud the last seconds were.

Everything is causal. Frame n depends on samples up to ``n * HOP + WINDOW`` and on the ``LEVELS`` frames before it, and
on nothing else: neither on what comes later, nor on where a recording began.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

RATE = 16_000
HOP, WINDOW = 160, 400
"""10 ms and 25 ms, in samples."""

BANDS = 64
_SUSTAINED = 6
"""Frames for which a sound must last to be a level, 60 ms: a key or a knock is shorter, a vowel is not."""

LEVELS = 511 + _SUSTAINED - 1
"""How many frames before a frame its level comes from: 5.16 s."""

LOWEST_HZ, HIGHEST_HZ = 80.0, 7600.0
_FFT = 512
_QUIET_DB = -50.0
"""Below this level (dB of full scale) nothing is taken for speech that is to be raised: noise stays small."""

_SINKS_DB = 0.03
"""By how much the level sinks from frame to frame after a loud one, 3 dB a second."""

_RANGE_DB = 70.0
_LEAST_POWER = 1e-13


def powers(samples: Tensor) -> Tensor:
    """``(…, N) float32`` at 16 kHz in [-1, 1] to mel powers ``(…, T, 64)``; T frames fit: ``1 + (N - 400) // 160``."""
    frames = samples.unfold(-1, WINDOW, HOP) * _window()
    spectrum = torch.fft.rfft(frames, _FFT)
    power = spectrum.real.square() + spectrum.imag.square()
    mels: Tensor = power @ _filters()
    return mels


def loudness(mels: Tensor) -> Tensor:
    """Mel powers ``(…, T, 64)`` to dB of full scale ``(…, T)``, of all bands together."""
    return 10 * torch.log10(mels.sum(-1) + _LEAST_POWER)


def levels(loud: Tensor) -> Tensor:
    """``loudness`` of T + LEVELS frames to the level ``(…, T)`` of the last T of them: the loudest that lasted so far,
    which counts less the longer it is past."""
    loud = loud.unfold(-1, _SUSTAINED, 1).amin(-1)
    step = 1
    while step <= LEVELS - _SUSTAINED:
        loud = torch.maximum(loud[..., step:], loud[..., :-step] - _SINKS_DB * step)
        step *= 2
    return loud.clamp(min=_QUIET_DB)


def features(mels: Tensor, level: Tensor) -> Tensor:
    """Mel powers ``(…, T, 64)`` and their levels ``(…, T)`` to what the network sees, ``(…, T, 64)`` in [-1, 1]: 1 is
    as loud as the level, -1 is 70 dB below."""
    decibels = 10 * torch.log10(mels + _LEAST_POWER) - level[..., None]
    return decibels.clamp(-_RANGE_DB, 0.0) * (2 / _RANGE_DB) + 1


def silence(frames: int) -> Tensor:
    """Loudness ``(frames,)`` of digital silence."""
    return loudness(torch.zeros(frames, BANDS))


def log_mel(samples: Tensor) -> Tensor:
    """``(…, N) float32`` to features ``(…, T, 64)``, as if silence had been before."""
    mels = powers(samples)
    before = silence(LEVELS).expand(*mels.shape[:-2], LEVELS)
    return features(mels, levels(torch.cat((before, loudness(mels)), -1)))


@cache
def _window() -> Tensor:
    """Hann, scaled so that all bands' powers together are the mean square of the samples."""
    window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    return (window / (window.square().sum() * _FFT / 2).sqrt()).float()


@cache
def _filters() -> Tensor:
    """``(257, 64)``: triangles that are evenly spaced in mel (O'Shaughnessy) and add up to 1 at every frequency."""
    edges = torch.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = torch.arange(_FFT // 2 + 1, dtype=torch.float64)[:, None] * (RATE / _FFT)
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    return functional.relu(torch.minimum(rising, falling)).float()


def _mel(hertz: float) -> float:
    return float(2595 * torch.log10(torch.tensor(1 + hertz / 700, dtype=torch.float64)))
