"""When things were captured: RTP timestamps of one sender's sound and picture on one timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamfx.media.webrtc.assemble import nearest

Lane = Literal["video", "audio"]

RATES: dict[Lane, int] = {"video": 90_000, "audio": 48_000}
"""RTP ticks per second: RFC 6184 and RFC 7741 for video, RFC 7587 for Opus."""

_RESYNC = 0.02


@dataclass(slots=True)
class _LaneClock:
    offset: float | None = None
    last_ticks: int = 0
    report: tuple[int, float] | None = None
    """(ticks, NTP seconds since 1970) of the last sender report."""

    def ntp_offset(self, rate: int) -> float | None:
        """Sender's wall clock at tick 0."""
        return None if self.report is None else self.report[1] - self.report[0] / rate


class SenderTimes:
    """Maps RTP ticks to seconds of our clock, the same for both lanes.

    A lane starts with the arrival of its first frame. Once sender reports (RFC 3550, 6.4.1) have told how both
    lanes' ticks relate to the sender's wall clock, sound is put where it belongs against the picture.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, _LaneClock] = {"video": _LaneClock(), "audio": _LaneClock()}

    def report(self, lane: Lane, timestamp: int, ntp: float) -> None:
        """A sender report: RTP ``timestamp`` (32 bit) is the moment ``ntp`` (seconds since 1970)."""
        clock = self._lanes[lane]
        if clock.offset is not None:
            clock.report = nearest(timestamp, clock.last_ticks), ntp
            self._resync()

    def pts(self, lane: Lane, ticks: int, arrived_at: float) -> float:
        """Seconds on the source's timeline of what carries ``ticks`` and came at ``arrived_at``."""
        clock = self._lanes[lane]
        clock.last_ticks = ticks
        if clock.offset is None:
            clock.offset = arrived_at - ticks / RATES[lane]
        return ticks / RATES[lane] + clock.offset

    def captured(self, lane: Lane, ticks: int) -> float | None:
        """When it was captured by the sender's wall clock, seconds since 1970; None before the first report."""
        offset = self._lanes[lane].ntp_offset(RATES[lane])
        return None if offset is None else ticks / RATES[lane] + offset

    def _resync(self) -> None:
        video, audio = self._lanes["video"], self._lanes["audio"]
        video_ntp, audio_ntp = video.ntp_offset(RATES["video"]), audio.ntp_offset(RATES["audio"])
        if video.offset is None or audio.offset is None or video_ntp is None or audio_ntp is None:
            return
        wanted = video.offset + audio_ntp - video_ntp
        if abs(wanted - audio.offset) > _RESYNC:
            audio.offset = wanted
