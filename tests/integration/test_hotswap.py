"""Engines that are built by another process while a stream runs, and what happens when that goes wrong."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from streamfx.core.errors import UsageError
from streamfx.engines import Eager, error_of
from streamfx.engines.build import Order, build, known
from streamfx.engines.cache import EngineCache
from streamfx.engines.hotswap import HotSwap
from tests.integration.engine_samples import net, noise, order
from tests.integration.streamfx_process import streamfx_run

pytestmark = pytest.mark.integration

_LONGEST = 60.0
_LIVE = (
    *("testpattern://?size=128x96&fps=20", "--budget-ms", "500"),
    *("--filter", "tests.integration.engine_samples:Swapped"),
)


class Subject:
    """A swap, with what it told."""

    def __init__(self, cache: EngineCache, wanted: Order, timeout: float = _LONGEST) -> None:
        self.told: list[str] = []
        self.part = net()
        self.swap = HotSwap(wanted, {"net": self.part}, self.told.append, cache, timeout=timeout)

    def until(self, come: Callable[[], object]) -> None:
        ends = time.monotonic() + _LONGEST
        while not come():
            assert time.monotonic() < ends, self.told
            time.sleep(0.02)

    def over(self) -> bool:
        return not self.swap._thread.is_alive()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache"))


def test_an_engine_is_built_beside_and_taken_once(cache: EngineCache) -> None:
    subject = Subject(cache, order())
    assert subject.swap.take() is None
    assert not subject.swap.wants_inputs
    subject.until(lambda: subject.swap.wants_inputs)
    assert subject.swap.take() is None, "not before a live frame has shown it to be right"
    inputs = noise(3)[-1:]
    subject.swap.give({"net": inputs})
    subject.until(subject.over)
    engines = subject.swap.take()
    assert engines is not None
    assert engines["net"].name == "onnxruntime"
    assert error_of(engines["net"](*inputs[0]), Eager(subject.part)(*inputs[0])) < 1e-4
    assert subject.swap.take() is None
    assert len(subject.told) == 1
    assert subject.told[0].startswith("net: onnxruntime is taken (onnxruntime ")
    subject.swap.close()
    assert psutil.Process().children() == []


def test_what_was_built_is_there_at_once(cache: EngineCache) -> None:
    build(order(), cache)
    before = {entry.key for entry in cache.entries()}
    subject = Subject(cache, order(), timeout=0.0)  # nothing can be built in no time
    subject.until(lambda: subject.swap.wants_inputs)
    subject.swap.give({"net": noise(1)})
    subject.until(subject.over)
    assert subject.swap.take() is not None
    assert {entry.key for entry in cache.entries()} == before
    # A damaged one is built again.
    (engine,) = (entry for entry in cache.entries() if entry.part == "net")
    (cache.folder / engine.key / "model.onnx").write_bytes(b"not that")
    assert known(order(), {"net": net()}, cache) is None
    assert build(order(), cache).engines["net"] == ("onnxruntime", engine.key)


@pytest.mark.parametrize(
    ("trick", "timeout", "reason"),
    [
        ("raise", _LONGEST, "RuntimeError: no such operator"),
        ("crash", _LONGEST, r"the process that builds them died \(exit status 7\)"),
        ("hang", 4.0, "building them took more than 4 s"),
    ],
)
def test_a_build_that_fails_is_told_once(trick: str, timeout: float, reason: str, tmp_path: Path) -> None:
    subject = Subject(EngineCache(tmp_path), order(trick=trick), timeout)
    subject.until(subject.over)
    assert subject.swap.take() is None
    assert not subject.swap.wants_inputs
    (told,) = subject.told
    assert told.startswith("the stream goes on without engines: ")
    assert re.search(reason, told)
    assert psutil.Process().children() == []
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_wrong_on_a_live_frame_is_not_taken(cache: EngineCache) -> None:
    build(order(), cache)
    subject = Subject(cache, order())
    subject.until(lambda: subject.swap.wants_inputs)
    with torch.no_grad():
        for parameter in subject.part.module.parameters():
            parameter.mul_(3)
    subject.swap.give({"net": noise(1)})
    subject.until(subject.over)
    assert subject.swap.take() is None
    assert "net by onnxruntime on a live frame: it is wrong by " in subject.told[-1]


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_closing_ends_the_build(after: float, tmp_path: Path) -> None:
    subject = Subject(EngineCache(tmp_path), order(trick="hang"))
    time.sleep(after)
    subject.swap.close()
    assert subject.over()
    assert subject.told == []
    assert psutil.Process().children() == []


_HANGS = """
import sys, time
from pathlib import Path
from streamfx.engines.cache import EngineCache
from streamfx.engines.hotswap import HotSwap
from tests.integration.engine_samples import net, order
swap = HotSwap(order(trick="hang"), {"net": net()}, print, EngineCache(Path(sys.argv[1])))
time.sleep(60)
"""


def test_a_build_does_not_outlive_who_asked(tmp_path: Path) -> None:
    asking = psutil.Popen([sys.executable, "-c", _HANGS, str(tmp_path)])
    try:
        ends = time.monotonic() + _LONGEST
        while not (children := asking.children()):
            assert time.monotonic() < ends
            time.sleep(0.05)
        time.sleep(2.0)
    finally:
        asking.kill()
        asking.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_auto_takes_what_is_quickest_and_says_why(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    fit = build(order("auto"), cache)
    assert fit.told[0].startswith("net: ")
    assert all(name in fit.told[0] for name in ("eager", "onnxruntime", "openvino"))
    assert known(order("auto"), {"net": net()}, cache) == replace(fit, told=list(fit.told))
    assert [entry.recipe for entry in cache.entries() if entry.part == "net"] == ["onnx"], "one file for both"


def test_eight_bits_want_real_frames(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    frames = [
        (torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(n)) * 255).byte().numpy() for n in range(4)
    ]
    fit = build(order("onnxruntime-int8"), cache, frames)
    engines = fit.loaded({"net": net()}, cache, 1)
    assert engines is not None
    assert engines["net"].name == "onnxruntime-int8"
    error = error_of(engines["net"](*noise(1)[0]), Eager(net())(*noise(1)[0]))
    assert 1e-5 < error < 0.05


def test_engines_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="there is no engine 'fast'; choose one of eager"):
        build(order("fast"), EngineCache())


async def test_a_stream_misses_no_deadline_across_the_swap(tmp_path: Path) -> None:
    cache = {"STREAMFX_ENGINES": str(tmp_path / "engines")}
    async with streamfx_run(tmp_path, *_LIVE, str(tmp_path / "out.mp4"), environment=cache) as running:
        stats = await running.until(lambda s: _says(s, "runs by onnxruntime"), "the swap", 60)
        before = stats["counters"]["processed"]
        stats = await running.until(lambda s: s["counters"]["processed"] > before + 40, "two seconds more")
        code, _ = await running.stop()
    assert code == 0
    assert before > 20, "the stream did not wait for the build"
    counters = stats["counters"]
    assert [counters.get(name, 0) for name in ("late", "left_out", "filter_errors", "filter_crashes")] == [0, 0, 0, 0]


@pytest.mark.parametrize("trick", ["raise", "crash"])
async def test_a_stream_goes_on_when_its_build_fails(trick: str, tmp_path: Path) -> None:
    cache = {"STREAMFX_ENGINES": str(tmp_path / "engines")}
    given = (*_LIVE, str(tmp_path / "out.mp4"), "--set", f"trick={trick}")
    async with streamfx_run(tmp_path, *given, environment=cache) as running:
        await running.until(lambda s: _says(s, "the stream goes on without engines"), "the failure", 60)
        before = running.stats()["counters"]["processed"]
        stats = await running.until(lambda s: s["counters"]["processed"] > before + 40, "two seconds more")
        code, said = await running.stop()
    assert code == 0
    assert said.count("filter: the stream goes on without engines") == 1
    counters = stats["counters"]
    assert [counters.get(name, 0) for name in ("late", "filter_errors", "filter_crashes")] == [0, 0, 0]


def _says(stats: dict[str, Any], text: str) -> bool:
    return any(text in note for note in stats.get("notes", ()))
