"""When each output slot is due, and what is shown in it. Pure: time comes in as numbers."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from streamfx.core.timeline import SlidingExtreme

Fallback = Literal["source", "hold"]


SLOT_EARLY = 0.4
"""How far, in slots, a picture may be before its slot. Not a half: a picture right between two slots, as every other
one is at half the source's rate, must fall to the same side each time."""


def slot_of(media: float, fps: Fraction) -> int:
    """The output slot that a picture of media time ``media`` (seconds) belongs to."""
    return math.floor(media * fps + SLOT_EARLY)


class Playout:
    """The output's clock: slot ``n`` shows media time ``n / fps`` and is due at ``due(n)`` on the local clock.

    The delay behind the source is the least that had everything of the last seconds ready in time that could be so
    within the budget after capture; what took longer is shown late or not at all, and delays nothing. It is
    approached by running the output up to ``FASTER`` quicker or ``SLOWER`` slower than nominal, so that nothing
    jumps; a source whose clock drifts is followed the same way.
    """

    FASTER = 0.05
    SLOWER = 0.10
    GUARD = 0.004
    """Seconds between a frame's being ready and its slot, for the scheduler's sake."""
    LONGEST_FOR_SOUND = 2.0

    def __init__(self, fps: float, budget: float, window: float = 3.0) -> None:
        self._period = 1.0 / fps
        self.budget = budget
        self._ready = SlidingExtreme(window)
        self._sound = SlidingExtreme(window)
        self._captured = SlidingExtreme(window)
        self._slot = 0
        self._due: float | None = None

    def captured(self, media: float, at: float) -> None:
        """A frame of media time ``media`` came in at ``at``."""
        self._captured.add(at, at - media)
        if self._due is None:
            self._due = at - media

    def ready(self, media: float, at: float) -> None:
        """What belongs to media time ``media`` could be shown from ``at`` on."""
        earliest = self._captured.get()
        if earliest is None or at - media <= earliest + self.budget:
            self._ready.add(at, -(at - media))

    def sound_ready(self, media: float, at: float) -> None:
        """Sound of media time ``media`` could be put out from ``at`` on. It may be behind the picture in a badly
        interleaved stream; it is waited for (up to ``LONGEST_FOR_SOUND``), for a hole in it is worse than delay."""
        self._sound.add(at, -(at - media))

    @property
    def slot(self) -> int:
        """The next slot."""
        return self._slot

    @property
    def due(self) -> float:
        """When the next slot is due. Only after the first ``captured``."""
        assert self._due is not None, "nothing was captured yet"
        return self._due

    @property
    def delay(self) -> float:
        """Seconds from capture to output, at present."""
        earliest = self._captured.get()
        return 0.0 if earliest is None else self.due - self._slot * self._period - earliest

    def step(self) -> None:
        """The slot was shown: on to the next."""
        lead = self.due - self._slot * self._period
        error = self._target(lead) - lead
        change = max(-self.FASTER * self._period, min(self.SLOWER * self._period, error))
        self._slot += 1
        self._due = self._slot * self._period + lead + change

    def skip_to(self, now: float) -> int:
        """Leaves out the slots that a standstill of the whole machine made pointless. Returns how many."""
        missed = int((now - self.due) / self._period)
        if missed > 0:
            self._slot += missed
            self._due = self.due + missed * self._period
        return max(0, missed)

    def _target(self, lead: float) -> float:
        slowest, sound, earliest = self._ready.get(), self._sound.get(), self._captured.get()
        if earliest is None:
            return lead
        target = lead if slowest is None else min(-slowest + self.GUARD, earliest + self.budget)
        return target if sound is None else max(target, min(-sound + self.GUARD, earliest + self.LONGEST_FOR_SOUND))


class Shown(enum.StrEnum):
    """What fills an output slot."""

    FRESH = "fresh"
    REUSED = "reused"
    SOURCE = "source"
    SLATE = "slate"


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """``hold``: seconds the last good output may stand in for new ones. ``slate_after``: seconds without any source
    frame until the slate. ``fallback``: what follows after ``hold`` while the source lives: its own frames, or the last
    output for as long as it takes (for filters that hide something: the source is never shown)."""

    hold: float = 1.0
    slate_after: float = 3.0
    fallback: Fallback = "source"


class Gate:
    """Chooses what each slot shows: fresh, else the last good output, else the source, else a slate.

    Once it fell back to the source, filtered frames are shown again only when they have kept coming for
    ``STEADY`` seconds, so that a struggling filter does not make the picture flip to and fro.
    """

    STEADY = 0.4

    def __init__(self, policy: GatePolicy, period: float) -> None:
        self._policy = policy
        self._period = period
        self._trusted = True
        self._fresh_since: float | None = None

    def choose(self, media: float, rendered: float | None, source: float | None) -> Shown:
        """Chooses for the slot at ``media``, when the newest rendering at or before it belongs to media time
        ``rendered`` and the newest source frame to ``source`` (None: there is none)."""
        half = 0.5 * self._period
        source_age = float("inf") if source is None else media - source
        if source_age > self._policy.slate_after:
            return Shown.SLATE
        age = float("inf") if rendered is None else media - rendered
        self._judge(media, rendered, age)
        if rendered is None:
            return Shown.SOURCE if self._policy.fallback == "source" else Shown.SLATE
        if not self._trusted:
            return Shown.SOURCE
        if age < half:
            return Shown.FRESH
        if self._policy.fallback == "hold" or age <= max(self._policy.hold, source_age + half):
            return Shown.REUSED
        self._trusted = False
        self._fresh_since = None
        return Shown.SOURCE

    def _judge(self, media: float, rendered: float | None, age: float) -> None:
        """Trusts the filter again after results have kept coming for a while."""
        if self._trusted or rendered is None:
            return
        if age > self._policy.hold / 2:
            self._fresh_since = None
        elif self._fresh_since is None:
            self._fresh_since = rendered
        elif rendered - self._fresh_since >= self.STEADY:
            self._trusted = True
            self._fresh_since = None
