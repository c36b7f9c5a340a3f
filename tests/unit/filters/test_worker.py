"""Real worker processes, and the deaths they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from streamfx.core.errors import FilterCrashedError, FilterError
from streamfx.filters.base import Block
from streamfx.filters.host import FilterSpec
from streamfx.filters.worker import InlineFilter, Rendered, WorkerFilter, standby
from tests.unit.filters.sample_filters import TrickParams

HERE = "tests.unit.filters.sample_filters"
SIZE = (16, 8)


@dataclass
class Bench:
    """A runner and what it told."""

    runner: WorkerFilter | InlineFilter
    events: list[tuple[str, str]] = field(default_factory=list)

    async def process(
        self,
        count: int = 1,
        value: int = 10,
        timeout: float = 10.0,
        audio: NDArray[np.float32] | None = None,
        audio_pts: float = 0.0,
        **more: object,
    ) -> Rendered:
        video = np.full((count, SIZE[1], SIZE[0], 3), value, np.uint8)
        block = Block(video=video, pts=tuple(float(n) for n in range(count)), audio=audio, audio_pts=audio_pts)
        return await self.runner.process(block, timeout=timeout, **more)  # type: ignore[arg-type]

    async def works(self, value: int = 10, add: int = 1) -> bool:
        return bool(((await self.process(value=value)).block.frames[:, 1:] == value + add).all())

    def trick(self, trick: str, add: int = 1) -> None:
        self.runner.set_params(TrickParams(trick=trick, add=add))  # type: ignore[arg-type]

    async def back(self) -> None:
        async with asyncio.timeout(10):
            await self.runner.wait_ready()


@contextlib.asynccontextmanager
async def bench(
    kind: type[WorkerFilter] | type[InlineFilter], name: str = "Tricky", block: int = 4, sound: bool = False
) -> AsyncIterator[Bench]:
    events: list[tuple[str, str]] = []
    spec = FilterSpec(f"{HERE}:{name}", SIZE, 30.0, 1, {}, sound)
    subject = Bench(kind(spec, block, lambda event, text: events.append((event, text))), events)
    running = asyncio.create_task(subject.runner.run())
    try:
        waiting = asyncio.create_task(subject.back())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            waiting.cancel()
            running.result()
        yield subject
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def arenas() -> set[Path]:
    return set(Path("/dev/shm").glob("streamfx-*.arena")) if Path("/dev/shm").is_dir() else set()


both = pytest.mark.parametrize("kind", [WorkerFilter, InlineFilter])


@both
async def test_blocks_go_in_and_come_out(kind: type[WorkerFilter]) -> None:
    async with bench(kind) as subject:
        for count in (1, 4, 2):
            for value in (0, 100, 200):
                rendered = await subject.process(count, value)
                assert rendered.block.frames.shape == (count, SIZE[1], SIZE[0], 3)
                assert (rendered.block.frames[:, 1:] == value + 1).all()
                assert rendered.block.pts == tuple(range(count))
                assert 0 <= rendered.seconds < 5
        assert subject.events == [("ready", "")]


@both
async def test_parameters_change_between_blocks_while_it_runs(kind: type[WorkerFilter]) -> None:
    async with bench(kind) as subject:
        assert await subject.works(add=1)
        subject.trick("none", add=50)
        assert await subject.works(add=50)
        subject.trick("none", add=7)
        subject.trick("none", add=8)
        assert await subject.works(add=8), "the last word counts"


@both
async def test_reset_comes_before_its_block(kind: type[WorkerFilter]) -> None:
    async with bench(kind) as subject:
        assert (await subject.process()).block.frames[0, 0, 0, 0] == 0
        assert (await subject.process(reset=True)).block.frames[0, 0, 0, 0] == 1
        assert (await subject.process()).block.frames[0, 0, 0, 0] == 1


@both
@pytest.mark.parametrize(
    ("trick", "sentence"),
    [
        ("raise", "ValueError: no such luck"),
        ("shape", "must return uint8 frames of shape"),
        ("dtype", "returned float32"),
        ("count", "each frame needs its own"),
    ],
)
async def test_a_mistake_costs_one_block(kind: type[WorkerFilter], trick: str, sentence: str) -> None:
    async with bench(kind) as subject:
        subject.trick(trick)
        with pytest.raises(FilterError, match=sentence) as caught:
            await subject.process(2)
        assert not isinstance(caught.value, FilterCrashedError)
        subject.trick("none")
        assert await subject.works()
        assert subject.events == [("ready", "")]


@both
async def test_what_a_plugin_prints_does_not_garble_the_messages(kind: type[WorkerFilter]) -> None:
    async with bench(kind) as subject:
        for trick in ("print", "write", "print"):
            subject.trick(trick)
            assert await subject.works()


@both
async def test_a_set_up_that_fails_is_told_in_a_sentence(kind: type[WorkerFilter]) -> None:
    with pytest.raises(FilterError, match="filter 'untrained' cannot be set up: RuntimeError: weights are missing"):
        async with bench(kind, "Untrained"):
            pass


async def test_a_set_up_that_dies_is_told_with_its_last_words() -> None:
    with pytest.raises(FilterError, match="died while it was set up: out of video memory"):
        async with bench(WorkerFilter, "Unborn"):
            pass


@pytest.mark.parametrize("name", ["Missing", "NOT_A_FILTER"])
async def test_what_is_no_filter_is_told_in_a_sentence(name: str) -> None:
    with pytest.raises(FilterError, match=r"cannot be loaded|is not a filter"):
        async with bench(WorkerFilter, name):
            pass


async def test_a_module_the_worker_cannot_find_is_told_in_a_sentence() -> None:
    runner = WorkerFilter(FilterSpec("no.such.module:X", SIZE, 30.0, 1, {}), 1)
    with pytest.raises(FilterError, match=r"^filter no\.such\.module:X: there is no module"):
        await runner.run()


@contextlib.asynccontextmanager
async def alive(runner: WorkerFilter) -> AsyncIterator[None]:
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(10):
            await runner.wait_ready()
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_process_on_standby_is_the_first_one_and_no_other() -> None:
    target = f"{HERE}:Tricky"
    async with standby(target, 1) as ready:
        assert ready is not None
        (waiting,) = psutil.Process().children()
        runner = WorkerFilter(FilterSpec(target, SIZE, 30.0, 1, {}), 4, first=ready)
        async with alive(runner):
            assert runner.pid == waiting.pid
            subject = Bench(runner)
            assert await subject.works()
            subject.trick("exit")
            with pytest.raises(FilterCrashedError):
                await subject.process()
            subject.trick("none")
            await subject.back()
            assert runner.pid != waiting.pid
        assert psutil.Process().children() == []


@pytest.mark.parametrize(("target", "threads"), [(f"{HERE}:Late", 1), (f"{HERE}:Tricky", 2)])
async def test_a_process_on_standby_for_something_else_is_left(target: str, threads: int) -> None:
    async with standby(target, threads) as ready:
        (waiting,) = psutil.Process().children()
        runner = WorkerFilter(FilterSpec(f"{HERE}:Tricky", SIZE, 30.0, 1, {}), 4, first=ready)
        async with alive(runner):
            assert runner.pid != waiting.pid
    assert psutil.Process().children() == []


async def test_what_is_wrong_with_a_filter_is_told_as_without_a_standby() -> None:
    async with standby(f"{HERE}:Missing", 1) as ready:
        runner = WorkerFilter(FilterSpec(f"{HERE}:Missing", SIZE, 30.0, 1, {}), 1, first=ready)
        with pytest.raises(FilterError, match="cannot be loaded"):
            await runner.run()
    assert psutil.Process().children() == []


@pytest.mark.parametrize(("scale", "width"), [(1.0, 16), (0.5, 8)])
async def test_scale_and_sizes(scale: float, width: int) -> None:
    async with bench(InlineFilter, "AnySize") as subject:
        rendered = await subject.process(scale=scale)
        assert (rendered.block.frames == width).all()
    async with bench(WorkerFilter, "AnySize") as subject:
        rendered = await subject.process(scale=scale)
        assert rendered.block.frames.shape == (1, SIZE[1], SIZE[0], 3)
        assert (rendered.block.frames == width).all()


async def test_a_filter_with_sizes_of_its_own() -> None:
    async with bench(WorkerFilter, "Sized") as subject:
        assert ((await subject.process()).block.frames == 16).all()


async def test_three_mistakes_in_a_row_restart_it() -> None:
    async with bench(WorkerFilter) as subject:
        assert isinstance(subject.runner, WorkerFilter)
        before = subject.runner.pid
        for _ in range(2):
            subject.trick("raise")
            with pytest.raises(FilterError, match="no such luck"):
                await subject.process()
        subject.trick("none")
        assert await subject.works(), "a good one in between starts the count anew"
        subject.trick("raise")
        for expected in (FilterError, FilterError, FilterCrashedError):
            with pytest.raises(FilterError) as caught:
                await subject.process()
            assert type(caught.value) is expected
        assert not subject.runner.ready
        subject.trick("none")
        await subject.back()
        assert subject.runner.pid != before
        assert await subject.works()
        assert [event for event, _ in subject.events] == ["ready", "restart", "ready"]


@pytest.mark.parametrize("trick", ["exit", "memory", "hang"])
async def test_it_dies_and_comes_back_with_the_parameters_of_now(trick: str) -> None:
    async with bench(WorkerFilter) as subject:
        assert isinstance(subject.runner, WorkerFilter)
        before = subject.runner.pid
        subject.trick(trick)
        reason = {"exit": "exit status 7", "memory": "ran out of memory", "hang": "hung for more than 0.5 s"}[trick]
        with pytest.raises(FilterCrashedError, match=reason):
            await subject.process(timeout=0.5 if trick == "hang" else 10.0)
        assert not subject.runner.ready
        with pytest.raises(FilterCrashedError, match="is being restarted"):
            await subject.process()
        subject.trick("none", add=33)
        await subject.back()
        assert subject.runner.pid != before
        assert await subject.works(add=33)
        assert not psutil.pid_exists(before or 0)
        kinds = [event for event, _ in subject.events]
        assert kinds == ["ready", "restart", "ready"]
        assert reason in subject.events[1][1]


async def test_killed_while_it_works() -> None:
    async with bench(WorkerFilter) as subject:
        assert isinstance(subject.runner, WorkerFilter)
        subject.trick("hang")
        call = asyncio.create_task(subject.process(timeout=30))
        await asyncio.sleep(0.1)
        assert subject.runner.pid is not None
        os.kill(subject.runner.pid, signal.SIGKILL)
        with pytest.raises(FilterCrashedError, match="exit status -9"):
            await call
        subject.trick("none")
        await subject.back()
        assert await subject.works()


async def test_killed_between_two_blocks() -> None:
    async with bench(WorkerFilter) as subject:
        assert isinstance(subject.runner, WorkerFilter)
        assert await subject.works()
        assert subject.runner.pid is not None
        os.kill(subject.runner.pid, signal.SIGKILL)
        with pytest.raises(FilterCrashedError):
            await subject.process()
        await subject.back()
        assert await subject.works()


async def test_a_call_that_was_given_up_leaves_nothing_to_the_next() -> None:
    async with bench(WorkerFilter) as subject:
        subject.trick("sleep")
        call = asyncio.create_task(subject.process(value=1))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        subject.trick("none")
        assert await subject.works(value=77)


async def test_before_it_is_ready_it_takes_nothing() -> None:
    for kind in (WorkerFilter, InlineFilter):
        runner = kind(FilterSpec(f"{HERE}:Tricky", SIZE, 30.0, 1, {}), 1)
        assert not runner.ready
        with pytest.raises(FilterCrashedError):
            await runner.process(Block(video=np.zeros((1, 8, 16, 3), np.uint8), pts=(0.0,)), timeout=1.0)
        if isinstance(runner, InlineFilter):
            runner._thread.shutdown()


async def test_nothing_is_left_after_a_cancel() -> None:
    before = arenas()
    async with bench(WorkerFilter) as subject:
        assert isinstance(subject.runner, WorkerFilter)
        assert await subject.works()
        pid = subject.runner.pid
        assert pid is not None
        assert arenas() == before, "attached memory has no name any more"
    assert not psutil.pid_exists(pid)
    assert arenas() == before
    assert psutil.Process().children() == []


@pytest.mark.parametrize("after", [0.0, 0.02, 0.15])
async def test_a_cancel_at_any_moment_of_the_start_leaves_nothing(after: float) -> None:
    before = arenas()
    runner = WorkerFilter(FilterSpec(f"{HERE}:Tricky", SIZE, 30.0, 1, {}), 1)
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(after)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert arenas() == before
    assert psutil.Process().children() == []


@both
async def test_what_a_filter_has_to_say_is_told(kind: type[WorkerFilter]) -> None:
    async with bench(kind) as subject:
        subject.trick("tell")
        await subject.process()
        subject.trick("none")
        await subject.process()
        first, second = (text for event, text in subject.events if event == "note")
        assert first.startswith("it goes to rtmp://host/live/")
        assert "k3y" not in first
        assert second == "x" * 1000


async def test_results_are_copies_that_stay() -> None:
    async with bench(WorkerFilter) as subject:
        first = (await subject.process(value=1)).block.frames
        await subject.process(value=100)
        assert (first[:, 1:] == 2).all()


@both
async def test_a_late_filter_gives_pictures_of_earlier_frames(kind: type[WorkerFilter]) -> None:
    async with bench(kind, "Late", block=2) as subject:
        out = []
        for first in (0, 2, 4, 6):
            video = np.stack([np.full((SIZE[1], SIZE[0], 3), first + n, np.uint8) for n in range(2)])
            block = Block(video=video, pts=(first / 30, (first + 1) / 30))
            given = (await subject.runner.process(block, timeout=10)).block
            out.append([(pts, int(picture[0, 0, 0])) for pts, picture in zip(given.pts, given.frames, strict=True)])
        assert out == [[], [(0.0, 0)], [(1 / 30, 1), (2 / 30, 2)], [(3 / 30, 3), (4 / 30, 4)]]


async def test_what_a_filter_started_goes_with_it() -> None:
    async with bench(WorkerFilter) as subject:
        subject.trick("spawn")
        await subject.process()
        (worker,) = psutil.Process().children()
        (grandchild,) = worker.children()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    _, alive = psutil.wait_procs([grandchild], timeout=5)
    assert not alive


async def test_a_line_without_end_is_borne() -> None:
    async with bench(WorkerFilter) as subject:
        subject.trick("endless")
        for _ in range(5):
            assert (await subject.process()).seconds < 5
        subject.trick("none")
        assert await subject.works()


@both
async def test_sound_goes_in_with_the_pictures(kind: type[WorkerFilter] | type[InlineFilter]) -> None:
    async with bench(kind, "Listening", block=1, sound=True) as subject:
        for count, level in ((1, 0.5), (48_000 * 8, 0.25), (960, 0.75)):
            audio = np.stack([np.full(count, level, np.float32), np.full(count, level / 5, np.float32)])
            rendered = await subject.process(audio=audio, audio_pts=12.0)
            seen = rendered.block.frames[0].reshape(-1, 3)
            assert seen.tolist() == [[round(100 * level), round(20 * level), 12]] * len(seen)
        assert not (await subject.process()).block.frames.any()
