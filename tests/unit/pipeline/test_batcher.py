"""Block sizes by measured cost: in numbers, and in a stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.diffusion.slo import CallCost
from streamfx.pipeline.batcher import Batcher
from tests.unit.pipeline.flowkit import camera, live_stage


def settle(subject: Batcher, cost: Callable[[int], float], calls: int = 100) -> int:
    for _ in range(calls):
        subject.measured(subject.size, cost(subject.size))
    assert subject.settled
    return subject.size


@pytest.mark.parametrize(
    ("overhead", "per_frame", "expected"),
    [
        (0.005, 0.005, 1),  # keeps up as it is
        (0.020, 0.002, 2),  # 22 ms for a frame every 17, 24 ms for two
        (0.030, 0.005, 4),
        (0.001, 0.050, 1),  # nothing helps; nothing is won by waiting
    ],
)
def test_the_block_that_keeps_up_with_the_least_delay(overhead: float, per_frame: float, expected: int) -> None:
    assert settle(Batcher((4, 1, 2), 60, 0.25), CallCost(overhead, per_frame).call) == expected


def test_the_first_call_at_a_size_is_not_counted() -> None:
    seen: set[int] = set()

    def cost(frames: int) -> float:
        first = frames not in seen
        seen.add(frames)
        return 5.0 if first else 0.005

    assert settle(Batcher((1, 2, 4), 60, 0.25), cost) == 1


def test_one_size_is_settled_from_the_start() -> None:
    subject = Batcher((4,), 30, 0.25)
    assert subject.settled
    subject.measured(4, 9.0)
    assert subject.size == 4


@given(st.floats(0, 0.2), st.floats(0, 0.2), st.floats(10, 120), st.lists(st.integers(1, 16), min_size=1, unique=True))
def test_it_always_settles(overhead: float, per_frame: float, fps: float, sizes: list[int]) -> None:
    subject = Batcher(sizes, fps, 0.25)
    assert settle(subject, CallCost(overhead + 1e-4, per_frame).call) in sizes
    subject.explore()
    assert subject.size == min(sizes)
    assert settle(subject, CallCost(1e-6, 0).call) == min(sizes)


async def test_a_stream_keeps_its_quality_by_larger_blocks() -> None:
    """A call of 60 ms and 5 a frame, at 20 fps: one by one every second frame would be left out."""
    stage = live_stage(
        camera(20, 20), lambda block, scale: 0.06 + 0.005 * len(block.pts), audio=False, blocks=(1, 2, 4), budget=0.3
    )
    await stage.play()
    assert stage.runner is not None
    assert [len(block.pts) for block in stage.runner.blocks][-50:] == [2] * 50
    settled = [p for p in stage.sink.pictures if 105 < p.at < 119]
    assert {p.kind for p in settled} == {"filtered"}
    assert [p.number for p in settled] == list(range(settled[0].number, settled[-1].number + 1))
    assert set(stage.stats.rungs) == {"full"}


async def test_when_calls_get_dearer_another_block_is_tried() -> None:
    stage = live_stage(
        camera(20, 100),
        lambda block, scale: (0.01 if block.pts[0] < 40 else 0.06) + 0.005 * len(block.pts),
        audio=False,
        blocks=(1, 2),
        budget=0.3,
        quality_levels=2,
    )
    await stage.play()
    assert stage.runner is not None
    sizes = [(block.pts[0], len(block.pts)) for block in stage.runner.blocks]
    assert {size for pts, size in sizes if pts < 39} == {1}
    assert {size for pts, size in sizes if pts > 60} == {2}
    assert {block.quality for block in stage.runner.blocks if block.pts[0] > 60} == {0}
