"""Waits that grow, up to a limit, and spread."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.backoff import Backoff


def test_doubles_up_to_the_longest() -> None:
    backoff = Backoff(first=1, longest=10, jitter=0)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.attempts == 6


def test_reset_starts_over() -> None:
    backoff = Backoff(first=1, longest=10, jitter=0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() == 1


@given(st.integers(0, 2**32), st.floats(0.01, 5), st.floats(5, 60), st.floats(0, 1))
def test_each_wait_is_within_its_jitter(seed: int, first: float, longest: float, jitter: float) -> None:
    backoff = Backoff(first, longest, jitter, random.Random(seed))
    nominal = first
    for _ in range(12):
        assert nominal * (1 - jitter) - 1e-12 <= backoff.next() <= nominal <= longest
        nominal = min(longest, nominal * 2)


def test_two_clients_do_not_come_back_together() -> None:
    waits = {Backoff(rng=random.Random(seed)).next() for seed in range(100)}
    assert len(waits) == 100
    assert max(waits) - min(waits) > 0.2


def test_its_own_chance_differs_between_instances() -> None:
    assert Backoff().next() != pytest.approx(Backoff().next(), abs=1e-12)
