"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Exponential waits with jitter: ``first``, twice that, … never over ``longest`` (seconds).

    Each wait is drawn from [1 - jitter, 1] of its nominal value, so that many clients of one server that
    came back do not all return in the same instant.
    """

    def __init__(
        self, first: float = 1.0, longest: float = 30.0, jitter: float = 0.3, rng: random.Random | None = None
    ) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._nominal = first
        self.attempts = 0

    def next(self) -> float:
        """Seconds to wait before the coming attempt."""
        nominal = self._nominal
        self._nominal = min(self._longest, nominal * 2)
        self.attempts += 1
        return nominal * (1 - self._jitter * self._rng.random())

    def reset(self) -> None:
        """It worked: the next failure starts from ``first`` again."""
        self._nominal = self._first
        self.attempts = 0
