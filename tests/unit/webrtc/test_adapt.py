"""Which layer a viewer gets."""

from __future__ import annotations

import itertools

from streamfx.media.webrtc.adapt import Adaptation, Layer


def drive(adaptation: Adaptation, start: float, seconds: float, layer: Layer, sent: float) -> tuple[float, Layer]:
    now = start
    while now < start + seconds:
        layer = adaptation.choose(now, layer, sent)
        now += 1
    return now, layer


def test_a_good_network_stays_high() -> None:
    adaptation = Adaptation()
    adaptation.estimate(5_000_000)
    _, layer = drive(adaptation, 0, 600, "high", 2_500_000)
    assert layer == "high"


def test_an_estimate_that_is_low_because_little_is_sent_is_no_congestion() -> None:
    adaptation = Adaptation()
    adaptation.estimate(400_000)
    _, layer = drive(adaptation, 0, 60, "high", 200_000)
    assert layer == "high"


def test_congestion_moves_down_and_a_trial_up_again() -> None:
    adaptation = Adaptation()
    adaptation.estimate(800_000)
    now, layer = drive(adaptation, 0, 10, "high", 2_500_000)
    assert layer == "low"
    now, layer = drive(adaptation, now, 5, "low", 600_000)
    assert layer == "low"
    adaptation.estimate(3_000_000)
    _, layer = drive(adaptation, now, 30, "low", 600_000)
    assert layer == "high"


def test_loss_moves_down() -> None:
    adaptation = Adaptation()
    adaptation.lost(0.2)
    _, layer = drive(adaptation, 0, 10, "high", 1_000_000)
    assert layer == "low"


def test_trials_that_fail_become_rare() -> None:
    adaptation = Adaptation()
    moves: list[float] = []
    layer: Layer = "high"
    for second in range(1200):
        sent = 2_500_000 if layer == "high" else 600_000
        adaptation.estimate(900_000)
        after = adaptation.choose(float(second), layer, sent)
        if after == "high" and layer == "low":
            moves.append(second)
        layer = after
    waits = [b - a for a, b in itertools.pairwise(moves)]
    assert waits == sorted(waits)
    assert waits[-1] >= 120
    assert len(moves) < 15


def test_a_moment_is_not_enough() -> None:
    adaptation = Adaptation()
    drive(adaptation, 0, 10, "high", 1_000_000)
    adaptation.lost(0.5)
    assert adaptation.choose(11, "high", 1e6) == "high"
    adaptation.lost(0.0)
    _, layer = drive(adaptation, 12, 60, "high", 1e6)
    assert layer == "high"
