"""Visemes: the tables, who maps to what, and how mouths run into each other."""

from __future__ import annotations

import numpy as np
import pytest

from streamfx.models.avatar.coefficients import MOUTH
from streamfx.models.avatar.visemes import (
    DOMINANCE,
    SIL,
    TARGETS,
    VISEMES,
    labels,
    of_arpabet,
    of_ipa,
    segments,
    trajectories,
)

JAW, WIDE, ROUND, PRESS, TUCK, TONGUE, TEETH = range(len(MOUTH))


def test_tables_have_all_visemes_and_coefficients() -> None:
    assert TARGETS.shape == DOMINANCE.shape == (15, 7)
    assert TARGETS.min() >= 0
    assert TARGETS.max() <= 1
    assert not TARGETS[SIL].any()
    assert TARGETS[:, PRESS].argmax() == VISEMES.index("PP")


@pytest.mark.parametrize(
    ("phoneme", "visemes"),
    [
        ("m", ("PP",)),
        ("tʃ", ("CH",)),
        ("dʒ", ("CH",)),
        ("ts", ("DD", "SS")),
        ("pf", ("PP", "FF")),
        ("aɪ", ("aa", "ih")),
        ("ˈoːɹ", ("oh", "RR")),
        ("ɑ̃", ("aa",)),
        ("", ("sil",)),
        ("ˈ", ()),
    ],
)
def test_ipa(phoneme: str, visemes: tuple[str, ...]) -> None:
    assert of_ipa(phoneme) == visemes


@pytest.mark.parametrize(
    ("phoneme", "visemes"),
    [
        ("B", ("PP",)),
        ("ow", ("oh", "ou")),
        ("AY1", ("aa", "ih")),
        ("JH", ("CH",)),
        ("SIL", ("sil",)),
        ("+SPN+", ("sil",)),
    ],
)
def test_arpabet(phoneme: str, visemes: tuple[str, ...]) -> None:
    assert of_arpabet(phoneme) == visemes


def test_diphthongs_share_their_time_and_stress_has_none() -> None:
    found = segments([(0.0, 0.1, "b"), (0.1, 0.3, "aɪ"), (0.3, 0.4, "ˈ")], of_ipa)
    assert found == [(0.0, 0.1, "PP"), (0.1, 0.2, "aa"), (0.2, 0.4, "ih")]


def test_rows_count_and_labels_stand_at_the_middle_of_rows() -> None:
    said = [(0.1, 0.2, "aa"), (0.2, 0.3, "PP")]
    assert trajectories(said, 0.4).shape == (10, 7)
    assert trajectories([], 0.41).shape == (11, 7)
    assert [VISEMES[at] for at in labels(said, 0.4)] == ["sil"] * 2 + ["aa"] * 3 + ["PP"] * 2 + ["sil"] * 3


@pytest.mark.parametrize("shift", np.linspace(0, 0.04, 9).tolist())
@pytest.mark.parametrize("length", [0.03, 0.05, 0.09])
def test_lips_shut_between_open_vowels_however_rows_fall(shift: float, length: float) -> None:
    begin = 0.3 + shift
    said = [(0.1, begin, "aa"), (begin, begin + length, "PP"), (begin + length, begin + 0.25, "aa")]
    rows = trajectories(said, 0.7)
    middle = rows[int((begin + length / 2) * 25)]
    assert middle[PRESS] > 0.9
    assert middle[JAW] < 0.2
    assert rows[:, JAW].max() > 0.6


def test_each_sound_has_its_mouth() -> None:
    def held(viseme: str) -> np.ndarray:
        return trajectories([(0.2, 0.6, viseme)], 0.8)[10]

    for viseme in VISEMES:
        np.testing.assert_allclose(held(viseme), TARGETS[VISEMES.index(viseme)], atol=0.08)


def test_lips_round_before_the_vowel_and_the_mouth_rests_in_pauses() -> None:
    rows = trajectories([(0.4, 0.5, "DD"), (0.5, 0.7, "ou"), (1.4, 1.6, "aa")], 2.0)
    assert rows[11, ROUND] > 0.3
    assert rows[:5].max() < 0.05
    assert rows[23:30].max() < 0.05


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no viseme"):
        trajectories([(0, 1, "xx")], 1)
    with pytest.raises(ValueError, match="sort them"):
        trajectories([(0.5, 1, "aa"), (0, 0.5, "E")], 1)
