"""Ten minutes with a filter three times too slow for its input: latency and memory must stay flat.

    python -m benchmarks.overload [--minutes 10]

The test pattern (640x360, 30 fps, with sound) goes through a filter that takes 100 ms a frame into a file. Printed per
minute: output frames a second, the delay from capture to output, p99 of the latency of pictures shown in that minute,
and resident memory of the stream's process.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machine import describe
from streamfx.config import load_config
from streamfx.core.stats import Histogram
from streamfx.pipeline import Session


async def measure(minutes: int) -> list[tuple[float, float, float, float, float]]:
    """A row a minute: output fps, filtered fps, delay ms, latency p99 ms, resident MB."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "input": f"testpattern://?size=640x360&fps=30&duration={60 * minutes + 2}",
            "outputs": [str(Path(folder) / "out.ts")],
            "filter": {"name": "benchmarks.slow_filter:Slow", "params": {"ms": 100}},
            "encode": {"preset": "ultrafast"},
        }
        session = Session(load_config(None, flags).session_settings())
        process = psutil.Process()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(session.run())
            await asyncio.sleep(2)
            counts = session.counts.counters
            for _ in range(minutes):
                out, done, began = counts["frames_out"], counts["processed"], time.monotonic()
                session.counts.latency = Histogram()
                await asyncio.sleep(60 - 0.001 * len(rows))
                seconds = time.monotonic() - began
                stats = session.stats()
                rows.append(
                    (
                        (counts["frames_out"] - out) / seconds,
                        (counts["processed"] - done) / seconds,
                        stats["delay_ms"],
                        stats["latency"]["p99_ms"],
                        process.memory_info().rss / 2**20,
                    )
                )
            session.stop()
            await running
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=int, default=10)
    rows = asyncio.run(measure(parser.parse_args().minutes))
    print(describe())
    print("| minute | output fps | filtered fps | delay ms | latency p99 ms | memory MB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for minute, (fps, done, delay, latency, memory) in enumerate(rows, 1):
        print(f"| {minute} | {fps:.2f} | {done:.2f} | {delay:.0f} | {latency:.0f} | {memory:.1f} |")


if __name__ == "__main__":
    main()
