"""Ten thousand frames through the whole tiny Wan: what a step costs, keeps and gives does not change."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator

import psutil
import pytest
import torch

from streamfx.diffusion.schedules import flow
from streamfx.diffusion.stream_batch import StreamBatch
from streamfx.models.causal_wan.dit import TINY
from streamfx.models.causal_wan.stream import SteppedWan
from streamfx.models.causal_wan.video import POLICIES, PolicyName
from tests.unit.models.test_wan_video import generator, prompt

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

FRAMES, PART, PERIOD, WINDOW = 10_000, 100, 10, 3


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more where others want the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("policy", ["sink", "tempcache"])
@torch.no_grad()
def test_ten_thousand_frames(policy: PolicyName) -> None:
    torch.manual_seed(0)
    model = generator()
    stepped = SteppedWan(model, prompt(model), (8, 8), most_steps=2, sinks=1, window=WINDOW, policy=POLICIES[policy])
    batch = StreamBatch(stepped, flow([800, 400], 5.0), torch.randn(2, 1, TINY.channels, 8, 8))
    sources = torch.randn(PERIOD, 1, TINY.channels, 8, 8)
    seconds: list[float] = []
    early = late = None
    process, memory = psutil.Process(), 0
    for n in range(FRAMES):
        began = time.process_time()
        out = batch.step(sources[n % PERIOD])
        seconds.append(time.process_time() - began)
        if n == 10 * PART:
            gc.collect()
            early, memory = out, process.memory_info().rss
        if n == FRAMES - PERIOD * WINDOW:
            late = out
    gc.collect()
    assert process.memory_info().rss - memory < 8e6
    # A share, not a time, of the processor's own and of medians: the machine may be slow, and does other things.
    first, last = (statistics.median(part) for part in (seconds[PART : 2 * PART], seconds[-PART:]))
    assert last < 1.5 * first
    assert early is not None
    assert late is not None
    assert torch.isfinite(late).all()
    if policy == "sink":
        # The same frames came round again, and lie in the same slots: positions in the window have lost nothing.
        assert torch.equal(early, late)
