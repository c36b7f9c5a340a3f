"""An output that cannot be written to as things are, beside others that can."""

from __future__ import annotations

from typing import Any

from streamfx.core.frames import Pixels, Samples
from streamfx.media.base import SinkState


class RefusedOutput:
    """A sink that has failed before it began, and says why."""

    def __init__(self, name: str, error: str) -> None:
        self.name = name
        self.error = error
        self.missed = 0

    @property
    def state(self) -> SinkState:
        return SinkState.FAILED

    def stats(self) -> dict[str, Any]:
        return {
            "output": self.name,
            "state": self.state.value,
            "error": self.error,
            "sent": 0,
            "dropped": 0,
            "missed_while_away": self.missed,
            "reconnects": 0,
            "bytes": 0,
            "encoder": "",
            "encoder_failures": 0,
            "queue_depth": 0,
        }

    async def run(self) -> None:
        """Nothing."""

    async def opened(self) -> None:
        """Nothing to wait for."""

    async def room(self) -> None:
        """Nothing to wait for."""

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        self.missed += 1

    def write_audio(self, samples: Samples, start: int) -> None:
        """Nothing."""

    async def finish(self, timeout: float) -> None:
        """Nothing."""
