"""Whose pictures come out of a denoiser that is some calls late."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Labels(Generic[T]):
    """What went in with each call, kept until its result comes out. The lag may change from call to call."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()

    def push(self, label: T) -> None:
        """Something went in."""
        self._waiting.append(label)

    def pop(self, lag: int) -> T | None:
        """The label of what comes out now, of what went in ``lag`` calls before the last; None if that was before the
        beginning. What is older was left out, and is forgotten."""
        while len(self._waiting) > lag + 1:
            self._waiting.popleft()
        return self._waiting.popleft() if len(self._waiting) == lag + 1 else None

    def clear(self) -> None:
        self._waiting.clear()
