"""What a face does by itself: it blinks, breathes, looks around and moves its head, more so while it speaks."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

from streamfx.models.avatar.coefficients import FACE

_AT = {name: n for n, name in enumerate(FACE)}

_CLOSING, _OPENING = 0.07, 0.13
_BLINK_EVERY = 3.4
_BLINK_APART = 0.7
_DOUBLE = 0.12
_BREATH = 3.9
_SWAY = {"yaw": (0.20, 0.065), "pitch": (0.13, 0.081), "roll": (0.11, 0.047)}
"""How far the head moves by itself, and how often a second."""
_SACCADE = 0.05
_FIXATION = (0.7, 2.6)
_ENGAGED, _FAST, _SLOW = 0.6, 0.09, 1.1
"""Seconds over which speaking makes it lively, and over which loudness is followed quickly and slowly."""


class Idle:
    """The movements of one face, always the same for a ``seed``. Time only goes forward."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"idle {seed}")
        self._phases = {name: [self._chance.uniform(0, math.tau) for _ in range(3)] for name in (*_SWAY, "smile")}
        self._breath = self._chance.uniform(0, _BREATH)
        self._blink = self._chance.uniform(0.8, _BLINK_EVERY)
        self._double = False
        self._look_from = self._look_to = (0.0, 0.0)
        self._look_at = 0.0
        self._look_next = self._chance.uniform(*_FIXATION)
        self._time: float | None = None
        self._speaking = self._quick = self._slow = 0.0

    def pose(self, seconds: float, loudness: float, speaking: bool, motion: float = 1.0) -> NDArray[np.float32]:
        """``(10,) float32``, as ``FACE`` names them. ``seconds``: media time; ``loudness``: of the voice, 0 to 1;
        ``motion``: how lively it is, 1 as people are."""
        step = 0.0 if self._time is None else min(max(seconds - self._time, 0.0), 1.0)
        self._time = seconds
        self._follow(step, loudness if speaking else 0.0, speaking)
        stress = max(0.0, self._quick - self._slow)
        found = np.zeros(len(FACE), np.float32)
        for name, (far, often) in _SWAY.items():
            found[_AT[name]] = motion * far * (1 + 0.9 * self._speaking) * self._wander(name, seconds, often)
        found[_AT["pitch"]] += motion * 0.55 * stress
        found[_AT["brow_up"]] = motion * (0.12 * self._speaking * self._wander("smile", seconds, 0.11) + 0.9 * stress)
        found[_AT["smile"]] = 0.10 * self._wander("smile", seconds, 0.05)
        found[_AT["breath"]] = math.sin(math.tau * (seconds + self._breath) / _BREATH)
        gaze = self._gaze(seconds, motion)
        # The eyes stay on whom they look at while the head turns.
        found[_AT["gaze_x"]] = gaze[0] - 0.7 * found[_AT["yaw"]]
        found[_AT["gaze_y"]] = gaze[1] - 0.7 * found[_AT["pitch"]]
        found[_AT["blink_left"]] = found[_AT["blink_right"]] = self._lids(seconds)
        return np.clip(found, -1, 1)

    def _follow(self, step: float, loudness: float, speaking: bool) -> None:
        self._speaking = _toward(self._speaking, float(speaking), step / _ENGAGED)
        self._quick = _toward(self._quick, loudness, step / _FAST)
        self._slow = _toward(self._slow, loudness, step / _SLOW)

    def _wander(self, name: str, seconds: float, often: float) -> float:
        """A smooth course in [-1, 1] that does not repeat itself for hours."""
        first, second, third = self._phases[name]
        turn = math.tau * often * seconds
        slower, faster = 0.6 * math.sin(2.618 * turn + second), 0.3 * math.sin(5.196 * turn + third)
        return (math.sin(turn + first) + slower + faster) / 1.9

    def _lids(self, seconds: float) -> float:
        """0 open, 1 shut."""
        while seconds > self._blink + _CLOSING + _OPENING:
            again = not self._double and self._chance.random() < _DOUBLE
            pause = 0.12 if again else _BLINK_APART + self._chance.expovariate(1 / (_BLINK_EVERY - _BLINK_APART))
            self._double = again
            self._blink = max(self._blink + _CLOSING + _OPENING + pause, seconds - 10)
        since = seconds - self._blink
        if since <= 0:
            return 0.0
        share = since / _CLOSING if since < _CLOSING else 1 - (since - _CLOSING) / _OPENING
        return _eased(share)

    def _gaze(self, seconds: float, motion: float) -> tuple[float, float]:
        while seconds >= self._look_next:
            self._look_from, self._look_at = self._look_to, self._look_next
            away = self._chance.random() < 0.45
            far = 0.28 * motion if away else 0.05
            self._look_to = self._chance.uniform(-far, far), self._chance.uniform(-0.6 * far, 0.6 * far)
            self._look_next = max(self._look_next + self._chance.uniform(*_FIXATION), seconds - 10)
        share = _eased(min(1.0, (seconds - self._look_at) / _SACCADE))
        (x, y), (to_x, to_y) = self._look_from, self._look_to
        return x + (to_x - x) * share, y + (to_y - y) * share


def _eased(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _toward(held: float, value: float, share: float) -> float:
    """``share``: of the time that it takes."""
    return held + (value - held) * (1 - math.exp(-share))
