"""Changing a running session: its filter, its parameters, its outputs. With real workers and real files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfx.core.errors import FilterError, UsageError
from streamfx.core.frames import Pixels, Samples
from streamfx.filters.registry import load, parse_params, target_of
from streamfx.media.base import SinkState
from streamfx.media.url import MediaUrl
from streamfx.pipeline.session import Session, SessionState
from streamfx.pipeline.settings import FilterChoice, SessionSettings
from tests.support import look_into

SOURCE = MediaUrl.parse("testpattern://?size=160x96&fps=30")


class Screen:
    """A sink that looks: the newest picture, and the longest wait between two."""

    name = "screen"
    state = SinkState.LIVE
    error = ""

    def __init__(self) -> None:
        self.newest: Pixels | None = None
        self.count = 0
        self.longest = 0.0
        self.captured: list[float | None] = []
        self._last: float | None = None

    def stats(self) -> dict[str, Any]:
        return {}

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def opened(self) -> None: ...

    async def room(self) -> None: ...

    def write_video(self, pixels: Pixels, pts: float, captured_at: float | None = None) -> None:
        now = asyncio.get_running_loop().time()
        if self._last is not None:
            self.longest = max(self.longest, now - self._last)
        self._last, self.newest = now, pixels
        self.count += 1
        self.captured.append(captured_at)

    def write_audio(self, samples: Samples, start: int) -> None: ...

    async def finish(self, timeout: float) -> None: ...


def choice(name: str, **params: Any) -> FilterChoice:
    target = target_of(name)
    kind = load(target)
    return FilterChoice(target, kind, parse_params(kind, params))


def blockiness(picture: Pixels | None) -> float:
    """Share of neighbours in a row that are equal: high after ``pixelate``."""
    assert picture is not None
    return float(np.mean(np.all(picture[:, 1:] == picture[:, :-1], axis=2)))


@contextlib.asynccontextmanager
async def live(filter: FilterChoice | None, events: list[tuple[str, str]]) -> AsyncIterator[tuple[Session, Screen]]:
    screen = Screen()
    settings = SessionSettings(SOURCE, (), filter)
    session = Session(settings, on_event=lambda kind, text: events.append((kind, text)), sinks=[screen])
    async with asyncio.TaskGroup() as group:
        group.create_task(session.run())
        try:
            await until(lambda: screen.count > 2)
            yield session, screen
        finally:
            session.stop()
    assert session.state is SessionState.ENDED


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.01)


async def test_a_filter_is_switched_without_a_gap() -> None:
    events: list[tuple[str, str]] = []
    async with live(None, events) as (session, screen):
        plain = blockiness(screen.newest)
        await session.switch_filter(choice("pixelate", cell=16))
        assert session.stats()["filter"] == "pixelate"
        await until(lambda: blockiness(screen.newest) > 0.9)
        assert plain < 0.9
        first_worker = session.worker_pid
        screen.longest = 0.0
        await session.switch_filter(choice("passthrough"))
        await until(lambda: blockiness(screen.newest) == pytest.approx(plain, abs=0.05))
        assert session.worker_pid not in (None, first_worker)
        await session.switch_filter(None)
        assert session.stats()["filter"] is None
        before = screen.count
        await until(lambda: screen.count > before + 5)
        # The new worker loads while the old one goes on: the output never waited for it.
        assert screen.longest < 0.4
    assert ("filter", "switched to pixelate") in events
    assert ("filter", "switched off") in events
    assert session.stats()["counters"].get("filter_crashes", 0) == 0
    assert all(stamp is not None for stamp in screen.captured)


async def test_a_filter_that_cannot_be_set_up_leaves_the_one_before() -> None:
    async with live(choice("pixelate", cell=16), []) as (session, screen):
        await until(lambda: blockiness(screen.newest) > 0.9)
        kind = load("tests.unit.filters.sample_filters:Untrained")
        bad = FilterChoice("tests.unit.filters.sample_filters:Untrained", kind, kind.params_type())
        with pytest.raises(FilterError, match="untrained"):
            await session.switch_filter(bad)
        assert session.stats()["filter"] == "pixelate"
        before = screen.count
        await until(lambda: screen.count > before + 5)
        assert blockiness(screen.newest) > 0.9
        session.set_params({"cell": 8})
        assert session.params is not None
        assert session.params.model_dump()["cell"] == 8


async def test_outputs_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    async with live(None, []) as (session, screen):
        number = await session.add_output(MediaUrl.parse(str(path)))
        with pytest.raises(UsageError, match="another output as well"):
            await session.add_output(MediaUrl.parse(str(path)))
        with pytest.raises(UsageError, match="no known output"):
            await session.add_output(MediaUrl.parse("gopher://x/y/z"))
        await until(lambda: session.stats()["outputs"][0]["sent"] > 20)
        before = screen.count
        await session.remove_output(number)
        assert session.stats()["outputs"] == []
        with pytest.raises(UsageError, match="no output"):
            await session.remove_output(number)
        await until(lambda: screen.count > before + 5)
    assert len(look_into(path).video) > 20


async def test_nothing_can_be_changed_before_it_runs() -> None:
    session = Session(SessionSettings(SOURCE, ()), sinks=[Screen()])
    with pytest.raises(UsageError, match="only while it runs"):
        await session.switch_filter(None)
    with pytest.raises(UsageError, match="only while it runs"):
        await session.add_output(MediaUrl.parse("late.mkv"))
