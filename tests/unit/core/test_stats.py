"""Histograms that stay small and are right within what they state."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.stats import Histogram, SessionStats


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("shape", ["lognormal", "uniform", "two humps"])
def test_quantiles_are_within_the_stated_error(share: float, shape: str) -> None:
    rng = np.random.default_rng(7)
    values = {
        "lognormal": rng.lognormal(-3, 0.6, 20_000),
        "uniform": rng.uniform(0.001, 2.0, 20_000),
        "two humps": np.concatenate([rng.normal(0.02, 0.001, 12_000), rng.normal(0.4, 0.01, 8_000)]),
    }[shape]
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.0251)


@given(st.lists(st.floats(1e-5, 960.0), min_size=1, max_size=100), st.floats(0.0, 1.0))
def test_any_quantile_is_within_the_stated_error(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.0251)


def test_an_empty_one_says_zero() -> None:
    assert Histogram().summary() == {"count": 0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}


def test_extremes_have_a_place() -> None:
    histogram = Histogram()
    for value in (0.0, -1.0, 1e-9, 1e9):
        histogram.add(value)
    assert histogram.count == 4
    assert histogram.largest == 1e9
    assert histogram.quantile(0.5) <= 1e-5
    assert histogram.quantile(1.0) >= 900


def test_quantiles_never_exceed_the_largest_and_rise() -> None:
    histogram = Histogram()
    for value in (0.01, 0.02, 0.0301):
        histogram.add(value)
    quantiles = [histogram.quantile(share / 20) for share in range(21)]
    assert quantiles == sorted(quantiles)
    assert quantiles[-1] <= 0.0301


def test_session_stats_are_json() -> None:
    stats = SessionStats()
    stats.count("frames_in", 3)
    stats.moves["full", "size-50"] += 1
    stats.rungs["full"] += 2
    stats.stage("filter", 0.01)
    stats.latency.add(0.1)
    seen = json.loads(json.dumps(stats.as_dict()))
    assert seen["counters"] == {"frames_in": 3}
    assert seen["ladder_moves"] == [{"from": "full", "to": "size-50", "count": 1}]
    assert seen["stages"]["filter"]["p50_ms"] == pytest.approx(10, rel=0.03)
    assert seen["latency"]["max_ms"] == pytest.approx(100)
