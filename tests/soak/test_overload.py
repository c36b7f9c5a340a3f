"""Minutes of a filter that is three times too slow, in real time and with real processes."""

from __future__ import annotations

import pytest

from benchmarks.overload import measure


@pytest.mark.soak
@pytest.mark.timeout(400)
async def test_latency_and_memory_stay_flat() -> None:
    rows = await measure(3)
    rates, _, delays, latencies, memory = zip(*rows, strict=True)
    assert min(rates) > 29.5, "the output lost its frame rate"
    assert max(delays) <= 251, "the output is behind its budget"
    assert latencies[-1] < 1.6 * latencies[0], f"latency grows: {latencies}"
    assert memory[-1] - memory[0] < 8, f"memory grows: {memory}"
