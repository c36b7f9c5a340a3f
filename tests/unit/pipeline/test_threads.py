"""How many threads a filter is given."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import ClassVar

import pytest

from streamfx.filters.base import Block, Context, Filter, FilterInfo, Params
from streamfx.media.url import MediaUrl
from streamfx.pipeline.session import Session
from streamfx.pipeline.settings import FilterChoice, SessionSettings


class Told(Filter[Params]):
    """Keeps what it was told."""

    name = "told"
    info = FilterInfo()
    threads: ClassVar[list[int]] = []

    def setup(self, context: Context, params: Params) -> None:
        self.threads.append(context.threads)

    def process(self, block: Block, params: Params) -> Block:
        return block


@pytest.mark.parametrize(("live", "asked", "given"), [(True, None, 1), (True, 3, 3), (False, None, 5), (False, 1, 1)])
async def test_threads_of_a_filter(
    live: bool, asked: int | None, given: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(Told, "threads", [])
    source = MediaUrl.parse(f"testpattern://?size=64x48&fps=30&duration=0.2&realtime={int(live)}")
    filter = FilterChoice(f"{__name__}:Told", Told, Params(), inline=True, threads=asked)
    async with asyncio.timeout(20):
        await Session(SessionSettings(source, (MediaUrl.parse(str(tmp_path / "out.mkv")),), filter)).run()
    assert Told.threads == [given]
