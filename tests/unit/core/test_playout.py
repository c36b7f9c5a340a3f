"""The output's clock and the choice of what fills a slot."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.playout import Gate, GatePolicy, Playout, Shown

FPS = 30.0
PERIOD = 1 / FPS
BUDGET = 0.25


class Model:
    """A stream of frames, a filter that takes ``latency(n)``, and the slots in between, in the order of time."""

    def __init__(self, budget: float = BUDGET, fps: float = FPS) -> None:
        self.playout = Playout(fps, budget)
        self.period = 1 / fps
        self.frame = 0
        self.results: list[tuple[float, float]] = []
        self.dues: list[float] = []
        self.delays: list[tuple[float, float]] = []

    def frames(self, count: int, latency: float, drift: float = 0.0, jitter: random.Random | None = None) -> None:
        for _ in range(count):
            media = self.frame * self.period
            at = 50.0 + media * (1 + drift)
            self._until(at)
            self.playout.captured(media, at)
            late = jitter.uniform(0, 0.02) if jitter else 0.0
            self.results.append((at + latency + late, media))
            self.frame += 1

    def _until(self, now: float) -> None:
        while True:
            due = self.playout.due if self.frame else float("inf")
            done = self.results[0][0] if self.results else float("inf")
            if min(due, done) >= now:
                return
            if done <= due:
                at, media = self.results.pop(0)
                self.playout.ready(media, at)
            else:
                self.dues.append(due)
                self.delays.append((due, self.playout.delay))
                self.playout.step()

    def delay_at(self, seconds: float) -> float:
        return next(delay for due, delay in self.delays if due >= 50.0 + seconds)


def test_the_first_slot_is_due_when_the_first_frame_came() -> None:
    playout = Playout(FPS, BUDGET)
    playout.captured(0.0, 7.0)
    assert (playout.slot, playout.due, playout.delay) == (0, 7.0, 0.0)


def test_delay_is_the_latency_plus_the_guard() -> None:
    model = Model()
    model.frames(300, 0.08)
    assert model.playout.delay == pytest.approx(0.08 + Playout.GUARD, abs=1e-6)


def test_jitter_is_covered_by_the_slowest_of_the_last_seconds() -> None:
    model = Model()
    model.frames(600, 0.05, jitter=random.Random(1))
    tail = [delay for due, delay in model.delays if due > 60]
    assert 0.05 + 0.015 < min(tail) <= max(tail) <= 0.05 + 0.02 + Playout.GUARD + 1e-6


def test_climbs_and_falls_at_the_stated_rates() -> None:
    model = Model()
    model.frames(300, 0.02)
    model.frames(300, 0.20)
    model.frames(900, 0.02)
    intervals = [b - a for a, b in itertools.pairwise(model.dues)]
    assert max(intervals) == pytest.approx(PERIOD * (1 + Playout.SLOWER), rel=1e-6)
    assert min(intervals) == pytest.approx(PERIOD * (1 - Playout.FASTER), rel=1e-6)
    # 0.18 s more at 10 % takes 1.8 s of output; 0.18 s less at 5 % takes 3.6 s, after the window of 3 s.
    assert model.delay_at(10.2 + 1.0) < 0.2 < model.delay_at(10.2 + 2.2)
    assert model.delay_at(20 + 2.9) == pytest.approx(0.204, abs=1e-6)
    assert model.delay_at(20 + 3.3 + 3.8) == pytest.approx(0.024, abs=0.01)


def test_what_takes_longer_than_the_budget_delays_nothing() -> None:
    model = Model()
    model.frames(300, 0.1)
    model.frames(1, 1.5)
    model.frames(300, 0.1)
    assert max(delay for _, delay in model.delays) <= 0.1 + Playout.GUARD + 1e-6


def test_budget_caps_what_is_just_within_it() -> None:
    model = Model()
    model.frames(600, BUDGET - 0.001)
    assert model.playout.delay == pytest.approx(BUDGET, abs=1e-6)


def test_a_burst_after_a_stall_does_not_raise_the_delay_for_good() -> None:
    playout = Playout(FPS, BUDGET)
    delays = []
    for index in range(1800):
        media = index * PERIOD
        came = 22.0 if 20 <= media < 22 else media  # two seconds of frames at once
        playout.captured(media, came)
        playout.ready(media, came + 0.02)
        while playout.due <= came:
            playout.step()
        delays.append(playout.delay)
    assert max(delays) <= BUDGET + 1e-6
    assert delays[-1] == pytest.approx(0.024, abs=1e-6)


@pytest.mark.parametrize("drift", [200e-6, -200e-6])
def test_a_drifting_source_is_followed_for_ten_hours(drift: float) -> None:
    fps = 2.0  # the arithmetic is the same, the test fifteen times as short
    playout, hour, delays = Playout(fps, 0.5), 3600, []
    for index in range(int(10 * hour * fps)):
        media = index / fps
        at = media * (1 + drift)
        while playout._due is not None and playout.due < at:
            delays.append((playout.due, playout.delay))
            playout.step()
        playout.captured(media, at)
        playout.ready(media, at + 0.1)
    early = [delay for due, delay in delays if 10 < due < 60]
    late = [delay for due, delay in delays if due > 10 * hour - 60]
    assert max(late) == pytest.approx(max(early), abs=0.002)
    assert all(0.1 <= delay < 0.107 for due, delay in delays if due > 10)
    # The output made as many slots as the source frames, no more and no fewer.
    assert playout.slot == pytest.approx(10 * hour * fps, abs=2)


def test_sound_behind_the_picture_is_waited_for_beyond_the_budget() -> None:
    playout = Playout(FPS, BUDGET)
    for index in range(600):
        media = index * PERIOD
        playout.captured(media, media)
        playout.ready(media, media + 0.02)
        playout.sound_ready(media, media + 0.6)
        while playout.due <= media:
            playout.step()
    assert playout.delay == pytest.approx(0.6 + Playout.GUARD, abs=1e-6)


def test_sound_is_not_waited_for_longer_than_stated() -> None:
    playout = Playout(FPS, BUDGET)
    for index in range(1500):
        media = index * PERIOD
        playout.captured(media, media)
        playout.ready(media, media)
        playout.sound_ready(media, media + 30.0)
        while playout.due <= media:
            playout.step()
    assert playout.delay == pytest.approx(Playout.LONGEST_FOR_SOUND, abs=1e-6)


def test_a_standstill_of_the_machine_is_skipped() -> None:
    playout = Playout(FPS, BUDGET)
    playout.captured(0.0, 5.0)
    before = playout.delay
    assert playout.skip_to(5.0 + 100.5 * PERIOD) == 100
    assert playout.slot == 100
    assert playout.due == pytest.approx(5.0 + 100 * PERIOD)
    assert playout.delay == pytest.approx(before)
    assert playout.skip_to(5.0) == 0
    assert playout.slot == 100


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.4), st.floats(0.0, 2.0), st.floats(0.0, 3.0), st.booleans()),
        min_size=1,
        max_size=80,
    ),
    st.floats(0.05, 1.0),
)
def test_due_times_only_rise_and_the_target_keeps_the_budget(
    steps: list[tuple[float, float, float, bool]], budget: float
) -> None:
    playout, now, media = Playout(FPS, budget), 10.0, 0.0
    for pause, latency, sound, with_sound in steps:
        now += pause
        media += PERIOD
        playout.captured(media, now)
        playout.ready(media, now + latency)
        if with_sound:
            playout.sound_ready(media, now + sound)
        due, slot, delay = playout.due, playout.slot, playout.delay
        playout.step()
        gap = playout.due - due
        assert playout.slot == slot + 1
        assert PERIOD * (1 - Playout.FASTER) - 1e-9 <= gap <= PERIOD * (1 + Playout.SLOWER) + 1e-9
        limit = max(budget, Playout.LONGEST_FOR_SOUND if any(s[3] for s in steps) else 0.0)
        assert playout.delay <= max(limit, delay) + 1e-9, "it may be above the limit, but does not grow there"


class Watcher:
    """A gate and slots one after the other."""

    def __init__(self, policy: GatePolicy | None = None) -> None:
        self.gate = Gate(policy or GatePolicy(), PERIOD)
        self.slot = 0

    def watch(self, seconds: float, rendered: float | None = 0.0, source: float | None = 0.0) -> list[Shown]:
        """``rendered`` and ``source``: by how much they are behind; None: nothing new from here on."""
        shown = []
        for _ in range(round(seconds * FPS)):
            media = self.slot * PERIOD
            if rendered is not None:
                self.rendered = media - rendered
            if source is not None:
                self.source = media - source
            shown.append(self.gate.choose(media, self.rendered, self.source))
            self.slot += 1
        return shown

    rendered: float | None = None
    source: float | None = None


def order(shown: list[Shown]) -> list[Shown]:
    return [kind for kind, _ in itertools.groupby(shown)]


def test_fresh_then_reused_then_source_then_slate() -> None:
    watcher = Watcher()
    assert order(watcher.watch(2)) == [Shown.FRESH]
    without_filter = watcher.watch(5, rendered=None)
    assert order(without_filter) == [Shown.REUSED, Shown.SOURCE]
    assert without_filter.count(Shown.REUSED) == pytest.approx(1.0 * FPS, abs=1)
    alone = watcher.watch(5, rendered=None, source=None)
    assert order(alone) == [Shown.SOURCE, Shown.SLATE]
    assert alone.count(Shown.SOURCE) == pytest.approx(3.0 * FPS, abs=1)


def test_before_the_first_result_the_source_is_shown() -> None:
    assert Gate(GatePolicy(), PERIOD).choose(0.0, None, 0.0) is Shown.SOURCE


def test_without_anything_the_slate_is_shown() -> None:
    assert Gate(GatePolicy(), PERIOD).choose(0.0, None, None) is Shown.SLATE


def test_a_silent_source_leaves_the_last_good_output_until_the_slate() -> None:
    """When the source stops, its own last frame is no newer than the last output: no reason to change over."""
    watcher = Watcher()
    watcher.watch(1)
    assert order(watcher.watch(5, rendered=None, source=None)) == [Shown.REUSED, Shown.SLATE]


def test_after_the_fallback_results_must_keep_coming_for_a_while() -> None:
    watcher = Watcher()
    watcher.watch(1)
    watcher.watch(2, rendered=None)
    back = watcher.watch(2)
    assert order(back) == [Shown.SOURCE, Shown.FRESH]
    assert back.count(Shown.SOURCE) == pytest.approx(Gate.STEADY * FPS, abs=2)


def test_sporadic_results_do_not_make_the_picture_flip() -> None:
    """One result every 1.5 s: hold is 1 s, so each would otherwise be shown for a moment."""
    watcher = Watcher()
    watcher.watch(1)
    shown: list[Shown] = []
    for _ in range(40):
        shown += watcher.watch(PERIOD, rendered=0.1)
        shown += watcher.watch(1.5 - PERIOD, rendered=None)
    assert order(shown) == [Shown.REUSED, Shown.SOURCE]


def test_results_that_are_always_a_little_late_are_reused_not_dropped() -> None:
    watcher = Watcher()
    assert order(watcher.watch(10, rendered=0.3)) == [Shown.REUSED]


def test_hold_keeps_the_last_output_for_as_long_as_it_takes() -> None:
    watcher = Watcher(GatePolicy(fallback="hold"))
    watcher.watch(1)
    assert order(watcher.watch(60, rendered=None)) == [Shown.REUSED]


@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.one_of(st.none(), st.floats(0, 5)), st.floats(0, 6)), max_size=60),
)
def test_hold_never_shows_the_source(steps: list[tuple[float, float | None, float]]) -> None:
    gate, media = Gate(GatePolicy(fallback="hold"), PERIOD), 0.0
    for pause, behind, source in steps:
        media += pause
        shown = gate.choose(media, None if behind is None else media - behind, media - source)
        assert shown is not Shown.SOURCE


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["works", "dead", "slow"])), min_size=1, max_size=40),
)
def test_source_and_filter_never_change_places_faster_than_steady(phases: list[tuple[int, str]]) -> None:
    watcher, shown = Watcher(), []
    for slots, phase in phases:
        shown += watcher.watch(slots * PERIOD, rendered={"works": 0.0, "dead": None, "slow": 0.7}[phase])
    runs = [(kind, sum(1 for _ in run)) for kind, run in itertools.groupby(s is Shown.SOURCE for s in shown)]
    inner = runs[1:-1]
    assert all(length * PERIOD >= Gate.STEADY - PERIOD for is_source, length in inner if is_source)
