"""The ladder: down at once, up slowly, never to and fro."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.governor import Cost, Governor, Rung, build_ladder

PERIOD = 1 / 30
BUDGET = 0.25


@dataclass
class Run:
    moves: list[tuple[float, str, str]] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    tried: list[float] = field(default_factory=list)


def simulate(governor: Governor, cost: Callable[[Rung, float], float], seconds: float, period: float = PERIOD) -> Run:
    """One filter under a governor: the next block is taken when the last is done, but not before it came."""
    run, now = Run(), 0.0
    while now < seconds:
        decision = governor.decide(now, now + BUDGET, period)
        if decision.moved_from is not None:
            run.moves.append((now, decision.moved_from.name, governor.rung.name))
        if decision.rung is None:
            run.left_out += 1
            now += period
            continue
        run.tried.append(now)
        took = cost(decision.rung, now)
        governor.measured(decision.rung, took)
        run.shown[decision.rung.name] = run.shown.get(decision.rung.name, 0) + 1
        now += max(period, took)
    return run


def by_area(full: float) -> Callable[[Rung, float], float]:
    return lambda rung, now: full * rung.scale**2


def test_ladder_goes_through_the_filters_own_levels_first() -> None:
    names = [rung.name for rung in build_ladder(3, 0.35)]
    assert names == ["full", "cheaper-1", "cheaper-2", "size-71", "size-50", "size-35"]
    assert [(rung.quality, rung.scale) for rung in build_ladder(2, 0.7)] == [(0, 1.0), (1, 1.0), (1, 0.71)]


def test_ladder_of_a_filter_that_forbids_shrinking_has_one_rung() -> None:
    assert [rung.name for rung in build_ladder(1, 1.0)] == ["full"]


def test_an_empty_ladder_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a rung"):
        Governor(())


@given(st.integers(1, 5), st.floats(0.05, 1.0))
def test_ladder_only_ever_gets_cheaper(levels: int, smallest: float) -> None:
    ladder = build_ladder(levels, smallest)
    assert all(a.quality <= b.quality and a.scale >= b.scale for a, b in itertools.pairwise(ladder))
    assert all(rung.scale >= smallest for rung in ladder)
    assert len({rung.name for rung in ladder}) == len(ladder)


def test_cost_follows_rfc_6298() -> None:
    cost = Cost()
    cost.add(0.1)
    assert (cost.mean, cost.deviation) == (0.1, 0.025)
    cost.add(0.2)
    assert cost.deviation == pytest.approx(0.025 * 3 / 4 + 0.1 / 4)
    assert cost.mean == pytest.approx(0.1 * 7 / 8 + 0.2 / 8)
    assert cost.bound == pytest.approx(cost.mean + 2 * cost.deviation)


def test_a_steady_cost_is_learnt_with_no_deviation_left() -> None:
    cost = Cost()
    for _ in range(100):
        cost.add(0.05)
    assert cost.bound == pytest.approx(0.05, rel=1e-6)


def test_an_unmeasured_rung_is_judged_by_area_and_level() -> None:
    governor = Governor(build_ladder(2, 0.5))
    assert governor.predict(3) == 0.0
    for _ in range(200):
        governor.measured(governor.rung, 0.1)
    assert governor.predict(1) == pytest.approx(0.07, rel=1e-3)
    assert governor.predict(2) == pytest.approx(0.07 * 0.71**2, rel=1e-3)
    assert governor.predict(3) == pytest.approx(0.07 * 0.25, rel=1e-3)


def test_begins_with_full_quality() -> None:
    governor = Governor(build_ladder(3, 0.5))
    assert governor.decide(0.0, BUDGET, PERIOD).rung == governor.rung == build_ladder(3, 0.5)[0]


def test_falls_at_once_as_far_as_needed() -> None:
    governor = Governor(build_ladder(1, 0.25))
    governor.decide(0.0, BUDGET, PERIOD)
    governor.measured(governor.rung, 3 * PERIOD)
    decision = governor.decide(0.1, 0.1 + BUDGET, PERIOD)
    assert decision.rung is not None
    assert decision.rung.name == "size-50"
    assert decision.moved_from is not None
    assert decision.moved_from.name == "full"


def test_one_slow_block_among_fast_ones_costs_no_quality() -> None:
    governor = Governor(build_ladder(1, 0.5))
    run = simulate(governor, lambda rung, now: 0.06 if 5.0 < now < 5.03 else 0.4 * PERIOD, 10.0)
    assert run.moves == []


@pytest.mark.parametrize("share", [0.6, 0.75])
def test_a_filter_that_keeps_up_on_average_keeps_its_quality(share: float) -> None:
    noise = random.Random(4)
    run = simulate(Governor(build_ladder(1, 0.5)), lambda rung, now: share * PERIOD * noise.lognormvariate(0, 0.2), 600)
    assert run.shown["full"] > 0.98 * sum(run.shown.values())


def test_three_times_too_slow_settles_at_once_and_stays_for_ten_minutes() -> None:
    run = simulate(Governor(build_ladder(1, 0.5)), by_area(3 * PERIOD), 600)
    assert [(a, b) for _, a, b in run.moves] == [("full", "size-50")]
    assert run.left_out == 0


def test_three_times_too_slow_and_noisy_settles_as_well() -> None:
    noise = random.Random(1)
    run = simulate(
        Governor(build_ladder(1, 0.5)),
        lambda rung, now: 3 * PERIOD * rung.scale**2 * noise.lognormvariate(0, 0.25),
        600,
    )
    assert len(run.moves) <= 3
    assert run.shown["size-50"] > 0.97 * sum(run.shown.values())


def test_a_climb_that_keeps_failing_is_tried_ever_more_rarely() -> None:
    """The better level costs four times as much, which nothing but trying can tell."""
    costs = [2 * PERIOD, 0.5 * PERIOD]
    run = simulate(Governor(build_ladder(2, 1.0)), lambda rung, now: costs[rung.quality], 600)
    climbs = [at for at, _, to in run.moves if to == "full"]
    waits = [b - a for a, b in itertools.pairwise(climbs)]
    assert waits[0] == pytest.approx(4, abs=0.3)
    assert waits[1] == pytest.approx(8, abs=0.3)
    assert waits[-1] == pytest.approx(60, abs=1)
    assert len(climbs) <= 15, "2+4+8+16+32 s, then one a minute"
    assert run.shown["full"] <= 16


def test_a_climb_that_held_for_a_minute_sets_the_wait_back() -> None:
    """After a bad time with failing climbs and a long good one, a short load is recovered from quickly."""

    def cost(rung: Rung, now: float) -> float:
        heavy = now < 40 or 300 < now < 302
        return [2 * PERIOD if heavy else 0.3 * PERIOD, 0.4 * PERIOD][rung.quality]

    run = simulate(Governor(build_ladder(2, 1.0)), cost, 400)
    fell = next(at for at, _, to in run.moves if at > 300 and to == "cheaper-1")
    back = next(at for at, _, to in run.moves if at > fell and to == "full")
    assert 300 < fell < 300.3
    assert back - fell < 2 + 0.5


def test_comes_back_up_one_rung_at_a_time_once_the_load_is_gone() -> None:
    run = simulate(
        Governor(build_ladder(1, 0.25)), lambda rung, now: (6 if 60 < now < 90 else 0.3) * PERIOD * rung.scale**2, 120
    )
    up = [(at, to) for at, _, to in run.moves if at > 90]
    assert [to for _, to in up] == ["size-50", "size-71", "full"]
    assert up[0][0] > 92
    assert all(b[0] - a[0] >= 2.0 for a, b in itertools.pairwise(up))
    assert up[-1][0] < 100


def test_a_slow_start_is_forgiven() -> None:
    run = simulate(Governor(build_ladder(1, 0.5)), lambda rung, now: 1.0 if now == 0 else 0.3 * PERIOD, 60)
    assert run.moves[-1][2] == "full"
    assert run.moves[-1][0] < 8


def test_hopelessly_slow_is_only_probed() -> None:
    run = simulate(Governor(build_ladder(1, 0.5), probe_every=1.0), by_area(2.0), 60)
    gaps = [b - a for a, b in itertools.pairwise(run.tried[2:])]
    assert min(gaps) >= 1.0
    assert max(gaps) < 1.0 + 2 * PERIOD
    assert run.left_out > 0


def test_a_single_hang_costs_only_itself() -> None:
    """A probe that is in time is believed, whatever was slow before."""
    governor = Governor(build_ladder(1, 1.0))
    run = simulate(governor, lambda rung, now: 2.0 if 5.0 < now < 5.04 else 0.2 * PERIOD, 10)
    assert run.left_out == 0
    assert len(run.tried) > 10 / PERIOD - 2.0 / PERIOD - 5


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
def test_a_steady_filter_within_the_budget_is_not_taken_for_a_slow_one(share: float) -> None:
    """Its first block says nothing of how much its cost varies."""
    run = simulate(Governor(build_ladder(1, 1.0)), lambda rung, now: share * BUDGET, 30)
    assert len(run.tried) > 20 / (share * BUDGET)


def test_a_late_block_gets_the_rung_that_still_fits_its_room() -> None:
    governor = Governor(build_ladder(1, 0.25))
    for _ in range(100):
        governor.measured(governor.rung, 0.03)
    decision = governor.decide(10.0, 10.0 + 0.016, PERIOD)
    assert decision.rung is not None
    assert decision.rung.name == "size-71"


durations = st.floats(1e-4, 1.0)
situations = st.lists(st.tuples(durations, st.floats(0.0, 0.5), st.floats(0.0, 0.3)), min_size=1, max_size=120)


@given(situations, st.integers(1, 3), st.sampled_from([0.25, 0.5, 1.0]), st.floats(0.01, 0.2))
def test_never_renders_what_does_not_fit_while_a_cheaper_one_does(
    steps: list[tuple[float, float, float]], levels: int, smallest: float, period: float
) -> None:
    ladder = build_ladder(levels, smallest)
    governor, now = Governor(ladder), 0.0
    for took, wanted, pause in steps:
        deadline = now + wanted
        room = deadline - now  # as the governor sees it: a clock's last bits are lost
        before = ladder.index(governor.rung)
        fitting = [i for i in range(before, len(ladder)) if governor.fits(i, room, period)]
        decision = governor.decide(now, deadline, period)
        after = ladder.index(governor.rung)
        if fitting:
            assert after == fitting[0] or (after == before - 1 and fitting[0] == before)
        else:
            assert after == len(ladder) - 1
        assert after >= before - 1, "one rung up at a time"
        if decision.rung is None:
            assert governor.predict(after) > room
        else:
            assert decision.rung == ladder[after]
            governor.measured(decision.rung, took)
        assert (decision.moved_from == ladder[before]) == (after != before)
        now += pause


@given(situations, st.floats(0.5, 5.0))
def test_never_climbs_faster_than_up_after(steps: list[tuple[float, float, float]], up_after: float) -> None:
    ladder = build_ladder(3, 0.25)
    governor, now, moved_at = Governor(ladder, up_after=up_after), 0.0, 0.0
    for took, room, pause in steps:
        before = ladder.index(governor.rung)
        decision = governor.decide(now, now + room, PERIOD)
        after = ladder.index(governor.rung)
        if after < before:
            assert now - moved_at >= up_after
        if after != before:
            moved_at = now
        if decision.rung is not None:
            governor.measured(decision.rung, took)
        now += pause


@given(st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_a_slower_filter_never_gets_a_better_rung(a: float, b: float) -> None:
    chosen = []
    for took in sorted((a, b)):
        governor = Governor(build_ladder(3, 0.25))
        governor.measured(governor.rung, took)
        governor.decide(1.0, 1.0 + BUDGET, PERIOD)
        chosen.append(build_ladder(3, 0.25).index(governor.rung))
    assert chosen[0] <= chosen[1]


def test_a_filter_whose_cost_does_not_go_with_size_is_not_made_to_look_worse() -> None:
    governor = Governor(build_ladder(1, 0.25))
    now, rungs, moves = 0.0, [], 0
    for _ in range(600):
        decision = governor.decide(now, now + 0.25, 1 / 30)
        assert decision.rung is not None
        moves += decision.moved_from is not None
        rungs.append(decision.rung.name)
        governor.measured(decision.rung, 0.1)
        now += 0.1
    assert set(rungs[60:]) == {"full"}
    assert moves <= 6


def test_a_filter_that_is_too_slow_everywhere_but_gains_by_size_stays_small() -> None:
    governor = Governor(build_ladder(1, 0.5))
    now, rungs = 0.0, []
    for _ in range(600):
        decision = governor.decide(now, now + 0.25, 1 / 30)
        assert decision.rung is not None
        rungs.append(decision.rung.name)
        cost = 0.2 * decision.rung.scale
        governor.measured(decision.rung, cost)
        now += cost
    assert set(rungs[60:]) == {"size-50"}
