"""Chooses how each block is rendered so that it meets its deadline: full → cheaper → smaller → not at all.

Pure: every decision follows from the numbers handed in, so tests need no clock and no filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to render. ``quality``: the filter's own level, 0 is full. ``scale``: share of its size per side."""

    name: str
    quality: int
    scale: float


def build_ladder(quality_levels: int, min_scale: float) -> tuple[Rung, ...]:
    """All ways to render with a filter, best first: its own cheaper levels, then smaller pictures."""
    rungs = [Rung("full" if level == 0 else f"cheaper-{level}", level, 1.0) for level in range(quality_levels)]
    lowest = quality_levels - 1
    percents = [percent for percent in (71, 50, 35, 25) if percent / 100 >= min_scale]
    return (*rungs, *(Rung(f"size-{percent}", lowest, percent / 100) for percent in percents))


@dataclass(slots=True)
class Cost:
    """Running mean and mean deviation of a duration in seconds, as TCP estimates its round trip (RFC 6298)."""

    mean: float = 0.0
    deviation: float = 0.0
    samples: int = 0

    def add(self, seconds: float) -> None:
        if self.samples == 0:
            self.mean, self.deviation = seconds, seconds / 4
        else:
            self.deviation += (abs(seconds - self.mean) - self.deviation) / 4
            self.mean += (seconds - self.mean) / 8
        self.samples += 1

    @property
    def bound(self) -> float:
        """What nearly every block takes at most."""
        return self.mean + 2 * self.deviation


@dataclass(frozen=True, slots=True)
class Decision:
    """``rung`` to render the block with; None: leave it out, what was shown last is shown on.
    ``moved_from``: the rung left with this decision, if any."""

    rung: Rung | None
    moved_from: Rung | None = None


class Governor:
    """Walks the ladder.

    Down at once, as far as needed, when nearly every block (``Cost.bound``) would not meet its deadline any more or
    the filter would not keep up with the frame rate on average (a single slow block is made up for by the next). Up
    one rung at a time, after the better one has looked affordable with a quarter to spare for ``up_after`` seconds; a
    climb that fails within 20 s doubles that wait for that rung (up to a minute), one that held for a minute sets it
    back. When even the cheapest rung is too late, blocks are left out but for a probe every ``probe_every`` seconds;
    one that comes in time is believed, whatever was slow before. If nothing fits and the cheapest rung turns out to
    cost as much as a better one, it goes back to that: looking worse must be worth something.
    """

    _HEADROOM = 1.25
    _QUALITY_STEP = 0.7
    _LONGEST_WAIT = 60.0
    _FAILS_WITHIN = 20.0
    _ENOUGH = 8
    _WORTHWHILE = 1.2

    def __init__(self, ladder: tuple[Rung, ...], up_after: float = 2.0, probe_every: float = 1.0) -> None:
        if not ladder:
            raise ValueError("the ladder needs a rung")
        self._ladder = ladder
        self._costs = [Cost() for _ in ladder]
        self._index = 0
        self._first_up_after = up_after
        self._waits = [up_after] * len(ladder)
        self._probe_every = probe_every
        self._affordable_since: float | None = None
        self._climbed_at = -1e9
        self._probed_at = -1e9
        self._probing: float | None = None

    @property
    def rung(self) -> Rung:
        """Where it stands."""
        return self._ladder[self._index]

    def measured(self, rung: Rung, seconds: float) -> None:
        """Takes note of what a block cost at ``rung``, from hand-over to result."""
        index = self._ladder.index(rung)
        room, self._probing = self._probing, None
        if room is not None and seconds * self._HEADROOM <= room:
            self._costs[index] = Cost(mean=seconds, samples=1)
        else:
            self._costs[index].add(seconds)

    def predict(self, index: int) -> float:
        """Seconds nearly every block should take at most at rung ``index``; 0 while nothing is known.

        An unmeasured rung is judged by the nearest measured one (of two, by the one it stands on): work goes with
        the picture's area, and each level of the filter's own is taken to save 30 %.
        """
        cost, share = self._judge(index)
        return cost.bound * share

    def fits(self, index: int, room: float, period: float) -> bool:
        """Whether rung ``index`` would meet a deadline ``room`` seconds away, and on average give a block every
        ``period``."""
        return self._affords(*self._judge(index), room, period)

    def decide(self, now: float, deadline: float, period: float) -> Decision:
        """Decides for a block handed over at ``now`` and due at ``deadline`` (seconds of one clock), when the next
        block follows ``period`` seconds later."""
        room = deadline - now
        before = self._index
        fitting = [i for i in range(before, len(self._ladder)) if self.fits(i, room, period)]
        self._index = fitting[0] if fitting else self._last_resort()
        if self._index > before:
            self._fell(now, before)
            return Decision(self.rung, moved_from=self._ladder[before])
        if not fitting and self.predict(self._index) > room:
            if now - self._probed_at < self._probe_every:
                return Decision(None)
            self._probed_at = now
            self._probing = room
            return self._here(before)
        if fitting and self._may_climb(now, room, period):
            self._index -= 1
        return self._here(before)

    def _here(self, before: int) -> Decision:
        return Decision(self.rung, moved_from=self._ladder[before] if before != self._index else None)

    def _last_resort(self) -> int:
        """Where to stand when nothing fits: the cheapest rung, or the best of those that cost about as much. (There
        are filters whose cost does not go with size; they would look worse for nothing.)"""
        cheapest = len(self._ladder) - 1
        if self._costs[cheapest].samples < self._ENOUGH:
            return cheapest
        limit = self._costs[cheapest].mean * self._WORTHWHILE
        return next(i for i, cost in enumerate(self._costs) if i == cheapest or 0 < cost.mean <= limit)

    def _judge(self, index: int) -> tuple[Cost, float]:
        """A measured cost, and the share of it that rung ``index`` should need."""
        measured = [i for i, cost in enumerate(self._costs) if cost.samples]
        if not measured:
            return Cost(), 1.0
        nearest = min(measured, key=lambda i: (abs(i - index), i != self._index))
        return self._costs[nearest], self._share(index, nearest)

    def _share(self, index: int, other: int) -> float:
        """What rung ``index`` should cost in parts of what rung ``other`` does."""
        here, there = self._ladder[index], self._ladder[other]
        return (here.scale / there.scale) ** 2 * self._QUALITY_STEP ** (here.quality - there.quality)

    @staticmethod
    def _affords(cost: Cost, share: float, room: float, period: float) -> bool:
        return cost.bound * share <= room and cost.mean * share <= period

    def _fell(self, now: float, left: int) -> None:
        held = now - self._climbed_at
        if held < self._FAILS_WITHIN:
            self._waits[left] = min(self._LONGEST_WAIT, self._waits[left] * 2)
        elif held > self._LONGEST_WAIT:
            self._waits[left] = self._first_up_after
        self._affordable_since = None

    def _may_climb(self, now: float, room: float, period: float) -> bool:
        above = self._index - 1
        # The better rung is judged by the present one: what it cost when it was left says nothing of now.
        share = self._share(above, self._index) * self._HEADROOM if above >= 0 else math.inf
        if above < 0 or not self._affords(self._costs[self._index], share, room, period):
            self._affordable_since = None
            return False
        if self._affordable_since is None:
            self._affordable_since = now
        if now - self._affordable_since < self._waits[above]:
            return False
        self._climbed_at = now
        self._affordable_since = None
        self._costs[above] = Cost()
        return True
