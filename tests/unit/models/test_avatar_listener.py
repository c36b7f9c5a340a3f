"""Poses belong to the moments of their sound, however it comes in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.models.avatar.coefficients import COEFFICIENTS, MOUTH
from streamfx.models.avatar.hearing import RATE, Hearing
from streamfx.models.avatar.listener import Listener, Manner, silero

IN = 48_000


class Envelope:
    """Stands for the network: opens the jaw as loud as it is in each 40 ms, with no lookahead."""

    def __init__(self) -> None:
        self.resets = 0
        self._samples = np.zeros(0, np.float32)

    def push(self, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._samples = np.concatenate([self._samples, samples])
        rows = []
        while len(self._samples) >= RATE // 25:
            part, self._samples = self._samples[: RATE // 25], self._samples[RATE // 25 :]
            rows.append([min(1.0, 2 * float(np.abs(part).mean()))] + [0.0] * 6)
        return np.array(rows, np.float32).reshape(-1, 7), np.zeros((len(rows), 15), np.float32)

    def reset(self) -> None:
        self.resets += 1
        self._samples = np.zeros(0, np.float32)


def listener(speech: Envelope | None = None) -> Listener:
    return Listener(speech or Envelope(), lambda window: float(np.abs(window).mean() > 0.01), 1)


def tone(seconds: float, level: float = 0.5) -> NDArray[np.float32]:
    moments = np.arange(round(seconds * IN)) / IN
    return np.tile(level * np.sin(2 * np.pi * 200 * moments), (2, 1)).astype(np.float32)


def quiet(seconds: float) -> NDArray[np.float32]:
    return np.zeros((2, round(seconds * IN)), np.float32)


def jaws(subject: Listener, start: float, seconds: float, manner: Manner | None = None) -> NDArray[np.float32]:
    moments = start + np.arange(round(seconds * 25)) / 25
    return np.array([subject.pose(float(moment), manner or Manner())[MOUTH.index("jaw_open")] for moment in moments])


def hear(subject: Listener, samples: NDArray[np.float32], pts: float, chunk: int) -> None:
    for at in range(0, samples.shape[1], chunk):
        subject.hear(samples[:, at : at + chunk], pts + at / IN)


@pytest.mark.parametrize("chunk", [480, 960, 1021, 48_000])
def test_a_mouth_opens_when_its_sound_does(chunk: int) -> None:
    subject = listener()
    hear(subject, np.concatenate([quiet(1), tone(1), quiet(1)], axis=1), 100.0, chunk)
    assert subject.known == pytest.approx(103, abs=0.1)
    course = jaws(subject, 100.0, 2.9)
    assert course[:24].max() < 0.05
    assert course[30:48].min() > 0.4
    assert course[60:].max() < 0.05


def test_how_it_comes_in_chunks_does_not_matter() -> None:
    voice = np.concatenate([quiet(0.5), tone(1, 0.3), tone(0.5, 0.7)], axis=1)
    courses = []
    for chunk in (480, 7000):
        subject = listener()
        hear(subject, voice, 5.0, chunk)
        courses.append(jaws(subject, 5.0, 1.9))
    np.testing.assert_allclose(courses[0], courses[1], atol=0.02)


def test_a_short_hole_is_silence_and_a_long_one_a_new_beginning() -> None:
    speech = Envelope()
    subject = listener(speech)
    hear(subject, tone(1), 0.0, 960)
    first = speech.resets
    hear(subject, tone(1), 1.3, 960)
    assert speech.resets == first
    assert subject.known == pytest.approx(2.3, abs=0.1)
    assert jaws(subject, 0.0, 2.2)[28:31].max() < 0.45
    hear(subject, tone(1), 30.0, 960)
    assert speech.resets == first + 1
    assert subject.known == pytest.approx(31, abs=0.1)
    hear(subject, tone(1), 3.0, 960)
    assert speech.resets == first + 2


def test_a_moment_that_was_not_heard_is_at_rest() -> None:
    subject = listener()
    hear(subject, tone(1), 0.0, 960)
    assert jaws(subject, 5.0, 0.5).max() == 0
    pose = subject.pose(6.0, Manner(smile=0.5))
    assert pose.shape == (len(COEFFICIENTS),)
    assert pose.dtype == np.float32
    assert pose[COEFFICIENTS.index("smile")] == pytest.approx(0.5, abs=0.11)


def test_the_manner_opens_the_mouth_further() -> None:
    subject = listener()
    hear(subject, tone(2, 0.3), 0.0, 960)
    usual = jaws(subject, 0.5, 0.4).mean()
    assert jaws(subject, 1.0, 0.4, Manner(mouth=1.5)).mean() > 1.3 * usual


def test_broken_samples_break_nothing() -> None:
    subject = listener()
    bad = tone(1)
    bad[:, 100:200] = np.nan
    bad[:, 300:400] = np.inf
    hear(subject, bad, 0.0, 960)
    assert np.isfinite(jaws(subject, 0.0, 0.9)).all()


def test_the_real_detector_tells_a_hum_from_nothing() -> None:
    pytest.importorskip("silero_vad")
    voice = silero()
    assert max(voice(np.zeros(512, np.float32)) for _ in range(20)) < 0.3


def test_full_scale_on_both_channels_is_not_clipped() -> None:
    subject = Hearing()
    heard, anew = subject.hear(tone(1, 1.0), 0.0)
    assert anew
    inner = heard[RATE // 4 : RATE // 2]
    assert float(np.sqrt(np.mean(inner**2))) == pytest.approx(np.sqrt(0.5), abs=0.01)


def test_what_was_said_before_a_restart_is_forgotten() -> None:
    subject = listener()
    hear(subject, tone(1), 100.0, 960)
    subject.restart()
    assert subject.known == -np.inf
    assert jaws(subject, 100.5, 0.3).max() == 0
