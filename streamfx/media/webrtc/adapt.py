"""Which layer a viewer gets: decided from what its receiver reports, viewer by viewer."""

from __future__ import annotations

from typing import Literal

Layer = Literal["high", "low"]


class Adaptation:
    """Down when the network takes less than what is sent (its estimate, REMB, stays below the bitrate, or more than a
    tenth of the packets is lost) for ``down_after`` seconds; up again on trial after a while without loss, which
    doubles each time the trial fails. Pure: time and figures come in as numbers.

    An estimate says little about what could be sent beyond what is (receivers hold it near what they get), so only a
    trial can tell.
    """

    _LOSS = 0.10
    _SETTLE = 4.0
    _FAILS_WITHIN = 15.0
    _LONGEST_WAIT = 120.0

    def __init__(self, down_after: float = 2.5, up_after: float = 10.0) -> None:
        self._down_after = down_after
        self._first_wait = self._wait = up_after
        self._estimate: float | None = None
        self._loss = 0.0
        self._bad_since: float | None = None
        self._moved_at: float | None = None
        self._climbed_at = float("-inf")

    def estimate(self, bitrate: int) -> None:
        """The receiver estimates that so many bits per second get through (REMB)."""
        self._estimate = float(bitrate)

    def lost(self, share: float) -> None:
        """So large a share of the packets since the last report was lost."""
        self._loss = share

    def choose(self, now: float, layer: Layer, sent: float) -> Layer:
        """The layer to send from ``now`` (seconds) on; ``sent``: bits per second of the present one."""
        if self._moved_at is None:
            self._moved_at = now
        if now - self._moved_at < self._SETTLE:
            return layer
        congested = self._loss > self._LOSS or (self._estimate is not None and self._estimate < 0.85 * sent)
        if not congested:
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now
        if layer == "high":
            if self._bad_since is not None and now - self._bad_since >= self._down_after:
                failed = now - self._climbed_at < self._FAILS_WITHIN
                self._wait = min(self._LONGEST_WAIT, 2 * self._wait) if failed else self._first_wait
                return self._move(now, "low")
            return "high"
        if self._bad_since is None and now - self._moved_at >= self._wait:
            self._climbed_at = now
            return self._move(now, "high")
        return "low"

    def _move(self, now: float, layer: Layer) -> Layer:
        self._moved_at, self._bad_since = now, None
        return layer
