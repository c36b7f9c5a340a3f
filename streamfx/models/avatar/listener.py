"""From sound to the poses of a face: what is said, whether anybody speaks, and what a face does by itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamfx.models.avatar.coefficients import FPS, MOUTH
from streamfx.models.avatar.hearing import RATE, Hearing
from streamfx.models.avatar.idle import Idle

_VAD_SAMPLES = 512
_SPEECH = 0.5
_HOLD = 0.25
"""Seconds before and after speech that still count as speech: mouths open before they sound."""
_REMEMBERED = 4 * FPS
_QUIET, _LOUD = -50.0, -14.0
"""dBFS of a voice that is hardly heard, and of one that shouts."""
_EASE = 0.12


class Hears(Protocol):
    """A network that listens to 16 kHz mono, chunk by chunk."""

    def push(self, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mouths ``(M, 7)`` and visemes ``(M, 15)`` of the moments that have become clear: the one numbered k is at
        ``(k + 0.5) / 25`` seconds."""
        ...

    def reset(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Manner:
    """``motion``: how lively the head is; ``mouth``: how far it opens; both 1 as people are. ``smile`` in [-1, 1]."""

    motion: float = 1.0
    mouth: float = 1.0
    smile: float = 0.0


@dataclass(frozen=True, slots=True)
class _Row:
    seconds: float
    mouth: NDArray[np.float32]
    loudness: float


class Listener:
    """Poses for any moment, once its sound and what follows it have been heard.

    ``speech``: reads lips from the sound. ``voice``: how sure it is that somebody speaks, 0 to 1, for 512 samples, as
    Silero's detector is. ``seed``: of what the face does by itself.
    """

    def __init__(self, speech: Hears, voice: Callable[[NDArray[np.float32]], float], seed: int) -> None:
        self._speech = speech
        self._voice = voice
        self._idle = Idle(seed)
        self._hearing = Hearing()
        self._open = 0.0
        self._asked: float | None = None
        self._quiet = 0.0
        self.restart()

    def restart(self) -> None:
        """What comes next is not joined to what came before."""
        self._hearing.restart()
        self._begin()

    def _begin(self) -> None:
        self._speech.reset()
        self._rows: deque[_Row] = deque(maxlen=_REMEMBERED)
        self._talk: deque[float] = deque(maxlen=_REMEMBERED)
        self._number = 0
        self._unheard = np.zeros(0, np.float32)
        self._levels: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._vad_end = 0.0

    @property
    def known(self) -> float:
        """Seconds up to which poses are clear."""
        return self._rows[-1].seconds if self._rows else -math.inf

    @property
    def quiet_since(self) -> float:
        """Seconds since anybody spoke, at the moment that was asked for last."""
        return self._quiet

    def hear(self, samples: NDArray[np.float32], pts: float) -> None:
        """``(2, N) float32`` at 48 kHz from ``pts`` seconds on. A short hole is silence; after a longer one, or a step
        back, it begins anew."""
        mono, anew = self._hearing.hear(samples, pts)
        if anew:
            self._begin()
        start = self._hearing.start or 0.0
        self._detect(mono, start)
        mouths, _ = self._speech.push(mono)
        for mouth in mouths:
            seconds = start + (self._number + 0.5) / FPS
            self._rows.append(_Row(seconds, mouth, self._loudness(seconds)))
            self._number += 1

    def pose(self, seconds: float, manner: Manner) -> NDArray[np.float32]:
        """``(17,) float32``, as ``COEFFICIENTS`` names them. Moments are asked for in their order; of one that was not
        heard, the face is at rest."""
        mouth, loudness = self._mouth(seconds)
        speaking = any(abs(moment - seconds) < _HOLD for moment in self._talk)
        step = 0.0 if self._asked is None else max(0.0, seconds - self._asked)
        self._asked = seconds
        self._quiet = 0.0 if speaking else self._quiet + step
        # Noise and music move no lips; and a mouth that is cut off does not snap.
        self._open += (float(speaking) - self._open) * (1 - math.exp(-step / (0.3 * _EASE if speaking else _EASE)))
        mouth = np.clip(mouth * self._open * _reach(manner.mouth), 0, 1)
        face = self._idle.pose(seconds, loudness, speaking, manner.motion)
        face[0] = np.clip(face[0] + manner.smile, -1, 1)
        return np.concatenate([mouth, face]).astype(np.float32)

    def _mouth(self, seconds: float) -> tuple[NDArray[np.float32], float]:
        """Between the rows around a moment."""
        before = after = None
        for row in reversed(self._rows):
            if row.seconds <= seconds:
                before = row
                break
            after = row
        if before is None or seconds - before.seconds > 2 / FPS:
            return np.zeros(len(MOUTH), np.float32), 0.0
        if after is None or after.seconds - before.seconds > 2 / FPS:
            return before.mouth, before.loudness
        share = (seconds - before.seconds) / (after.seconds - before.seconds)
        mouth = before.mouth + (after.mouth - before.mouth) * np.float32(share)
        return mouth, before.loudness + (after.loudness - before.loudness) * share

    def _detect(self, mono: NDArray[np.float32], start: float) -> None:
        """Notes when somebody speaks, and how loud it is. ``start``: seconds of the first sample of all."""
        self._unheard = np.concatenate([self._unheard, mono])
        while len(self._unheard) >= _VAD_SAMPLES:
            window, self._unheard = self._unheard[:_VAD_SAMPLES], self._unheard[_VAD_SAMPLES:]
            middle = start + self._vad_end + 0.5 * _VAD_SAMPLES / RATE
            self._vad_end += _VAD_SAMPLES / RATE
            decibels = 20 * math.log10(max(1e-6, float(np.sqrt(np.mean(window**2)))))
            self._levels.append((middle, min(1.0, max(0.0, (decibels - _QUIET) / (_LOUD - _QUIET)))))
            if self._voice(window) > _SPEECH:
                self._talk.append(middle)

    def _loudness(self, seconds: float) -> float:
        return next((level for moment, level in reversed(self._levels) if moment <= seconds), 0.0)


def _reach(mouth: float) -> NDArray[np.float32]:
    """How far each coefficient is exaggerated: what shuts a mouth shuts it at any size."""
    return np.array([1.0 if name in ("lips_press", "lip_tuck") else mouth for name in MOUTH], np.float32)


def silero() -> Callable[[NDArray[np.float32]], float]:
    """Silero's voice activity detector (MIT), whose model comes with its package."""
    from silero_vad import load_silero_vad

    network = load_silero_vad(onnx=True)

    def voice(window: NDArray[np.float32]) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(window), RATE))

    return voice
