"""Block sizes and steps from measured costs."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.diffusion.slo import CallCost, balance, fit, judge, plan

COSTS = st.builds(CallCost, st.floats(0, 0.2), st.floats(1e-4, 0.2))


def test_a_cost_is_found_again() -> None:
    true = CallCost(0.02, 0.005)
    found = fit([(rows, true.call(rows)) for rows in (1, 2, 4, 8)])
    assert found.overhead == pytest.approx(0.02)
    assert found.per_row == pytest.approx(0.005)


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(1e-4, 1)), min_size=1, max_size=20))
def test_a_fit_is_never_negative(samples: list[tuple[int, float]]) -> None:
    found = fit(samples)
    assert found.overhead >= 0
    assert found.per_row >= 0
    mean = sum(seconds for _, seconds in samples) / len(samples)
    at_mean = found.overhead + found.per_row * sum(rows for rows, _ in samples) / len(samples)
    assert at_mean == pytest.approx(mean, rel=1e-6)


def test_a_quick_model_gets_all_its_steps_and_no_waiting() -> None:
    best = plan(CallCost(0.001, 0.002), fps=30, budget=0.25)
    assert (best.frames, best.steps, best.in_time) == (1, 4, True)


def test_overhead_makes_blocks() -> None:
    best = plan(CallCost(0.05, 0.004), fps=30, budget=1.0)
    assert best.frames > 1
    assert best.in_time


def test_too_slow_is_said() -> None:
    best = plan(CallCost(0.1, 0.1), fps=30, budget=0.25)
    assert not best.keeps_up
    assert best.steps == 1


@given(COSTS, st.floats(5, 60), st.floats(0.03, 2))
@settings(max_examples=200)
def test_no_other_choice_is_better(cost: CallCost, fps: float, budget: float) -> None:
    best = plan(cost, fps, budget)
    for frames in (1, 2, 4, 8):
        for steps in (1, 2, 3, 4):
            other = judge(cost, frames, steps, fps, budget)
            if other.in_time:
                assert best.in_time
                assert (best.steps, -best.latency) >= (other.steps, -other.latency)
            if other.keeps_up:
                assert best.keeps_up


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.integers(1, 5), st.floats(0, 2), st.floats(0, 2))
@settings(max_examples=100)
def test_layers_are_balanced_as_well_as_can_be(costs: list[float], ranks: int, first: float, last: float) -> None:
    if ranks > len(costs):
        with pytest.raises(ValueError, match="cannot be cut"):
            balance(costs, ranks)
        return

    def worst(borders: tuple[int, ...]) -> float:
        parts = [sum(costs[a:b]) for a, b in pairwise((0, *borders, len(costs)))]
        parts[0] += first
        if ranks > 1:
            parts[-1] += last
        return max(parts)

    counts = balance(costs, ranks, first, last)
    assert len(counts) == ranks
    assert min(counts) >= 1
    assert sum(counts) == len(costs)
    borders = tuple(sum(counts[: n + 1]) for n in range(ranks - 1))
    best = min(worst(choice) for choice in combinations(range(1, len(costs)), ranks - 1))
    assert worst(borders) == pytest.approx(best)


@pytest.mark.parametrize("bad", [{"blocks": ()}, {"blocks": (0,)}, {"most_steps": 0}, {"fps": 0}])
def test_nothing_to_choose_from(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a plan needs"):
        plan(CallCost(0.1, 0.1), **({"fps": 30.0, "budget": 0.1} | bad))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no measurement"):
        fit([])
