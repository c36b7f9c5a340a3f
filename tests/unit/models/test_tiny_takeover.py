"""When the restyler's stream asks for engines, shows them a frame, and takes them. The swap itself, with its process,
is tested for real in tests/integration/test_hotswap.py; here it is a stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamfx.engines import Eager, Engine
from streamfx.engines import takeover as module
from streamfx.engines.takeover import EngineTakeover
from streamfx.models.tiny.engines import all_parts, order, takeover
from streamfx.models.tiny.load import Networks
from streamfx.models.tiny.parts import EngineCodes, EngineDenoiser
from streamfx.models.tiny.stream import TinyStream
from tests.unit.models.test_tiny import look, picture, stream


class Swap:
    """In place of ``HotSwap``."""

    made: list[Swap]

    def __init__(self, wanted: Any, parts: Any, told: Any, frames: Any) -> None:
        self.frames = list(frames)
        self.wants_inputs = False
        self.given: list[Any] = []
        self.ready: dict[str, Engine] | None = None
        self.closed = False
        Swap.made.append(self)

    def give(self, inputs: Any) -> None:
        self.wants_inputs = False
        self.given.append(inputs)

    def take(self) -> dict[str, Engine] | None:
        found, self.ready = self.ready, None
        return found

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _swap(monkeypatch: pytest.MonkeyPatch) -> None:
    Swap.made = []
    monkeypatch.setattr(module, "HotSwap", Swap)


ORDER = order([((96, 64), 64)], 1, "openvino", 1)
FRAME = np.zeros((64, 96, 3), np.uint8)


def step(subject: EngineTakeover, of: TinyStream, n: int, **more: object) -> None:
    with subject.frame(FRAME + np.uint8(n)):
        of.step(picture(n), float(n), look(**more))  # type: ignore[arg-type]


def test_engines_are_taken_between_two_frames() -> None:
    told: list[str] = []
    played = stream()
    subject = takeover(played, ORDER, told.append)
    (swap,) = Swap.made
    plain = played.codes, played.denoise
    step(subject, played, 0)
    assert swap.given == []
    swap.wants_inputs = True
    step(subject, played, 1)
    (inputs,) = swap.given
    parts = all_parts(Networks(played.codes, played._dit))  # type: ignore[arg-type]
    assert set(inputs) == set(parts)
    for name, calls in inputs.items():
        for given in calls:
            parts[name].check(given)
    assert (played.codes, played.denoise) == plain, "only recorded"
    swap.ready = {name: Eager(part) for name, part in parts.items()}
    step(subject, played, 2)
    assert isinstance(played.codes, EngineCodes)
    assert isinstance(played.denoise, EngineDenoiser)
    assert told == ["the stream runs by engines now: see by eager, encode by eager, decode by eager, denoise by eager"]
    step(subject, played, 3)
    subject.close()
    assert not swap.closed, "it is over already"


def test_a_frame_that_was_not_drawn_anew_shows_nothing() -> None:
    played = stream()
    subject = takeover(played, ORDER, lambda text: None)
    step(subject, played, 0, every=2)
    Swap.made[0].wants_inputs = True
    step(subject, played, 1, every=2)
    assert Swap.made[0].given == []
    step(subject, played, 2, every=2)
    assert len(Swap.made[0].given) == 1
    subject.close()
    assert Swap.made[0].closed


def test_eight_bits_wait_for_real_frames() -> None:
    played = stream()
    subject = takeover(played, ORDER, lambda text: None, [FRAME], wanted_frames=3)
    step(subject, played, 1)
    assert Swap.made == []
    step(subject, played, 2)
    assert [int(frame[0, 0, 0]) for frame in Swap.made[0].frames] == [0, 1, 2]
    step(subject, played, 3)
    assert len(Swap.made) == 1
