"""What more targets cost: the same stream pushed to one, two and four of them.

    python -m benchmarks.targets [--seconds 15] [--before FOLDER]

``streamfx run`` pushes its test picture (1280x720 at 30 fps, x264 veryfast, 3 Mbps) to nginx-rtmp. Printed: CPU a
picture of the stream, of its children, which encode and send, and of all of it; its processes, and the memory that only
they use. ``--before``: a checkout of another version, measured in turns with this one. Needs nginx with RTMP.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import describe
from tests.integration.programs import free_port, nginx_rtmp
from tests.integration.streamfx_process import Running, Stats, streamfx_run

_HERE = Path(__file__).resolve().parent.parent
_PATTERN = "testpattern://?size=1280x720&fps=30"
_TARGETS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Cost:
    """``children``, ``all``: CPU seconds a picture. ``megabytes``: that the children do not share with anybody."""

    children: float
    all: float
    processes: int
    megabytes: float
    fps: float


def cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(time.user + time.system for time in times))


def live(stats: Stats) -> list[Stats]:
    return [row for row in stats["outputs"] if row["state"] == "live"]


async def measure(code: Path, folder: Path, urls: list[str], seconds: float) -> Cost:
    arguments = (_PATTERN, *urls, "--config", str(folder / "encode.yaml"))
    place = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    async with streamfx_run(folder, *arguments, environment=place) as run:
        await run.until(lambda s: len(live(s)) == len(urls), "all to be live", 40)
        await run.frames(60)
        parent = psutil.Process(run.process.pid)
        children = parent.children(recursive=True)
        before = await sent_anew(run)
        began, used, ours = time.monotonic(), cpu_seconds(children), cpu_seconds([parent])
        await asyncio.sleep(seconds)
        pictures = (await sent_anew(run) - before) / len(urls)
        elapsed, used, ours = time.monotonic() - began, cpu_seconds(children) - used, cpu_seconds([parent]) - ours
        memory = sum(child.memory_full_info().uss for child in children)
        await run.stop()
    return Cost(used / pictures, (used + ours) / pictures, len(children), memory / 1e6, pictures / elapsed)


async def sent_anew(run: Running) -> int:
    """Pictures sent to all targets, as soon as it is told again."""

    def sent() -> int:
        return sum(row["sent"] for row in run.stats()["outputs"])

    before = sent()
    while sent() == before:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return sent()


async def compare(codes: dict[str, Path], seconds: float, folder: Path) -> dict[tuple[int, str], Cost]:
    (folder / "encode.yaml").write_text("encode: {video_kbps: 3000, encoder: software}\n")
    port = free_port()
    costs = {}
    async with nginx_rtmp(folder, port):
        for count in _TARGETS:
            for name, code in codes.items():
                urls = [f"rtmp://127.0.0.1:{port}/live/{name}-{count}-{n}" for n in range(count)]
                costs[count, name] = await measure(code, folder, urls, seconds)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--before", type=Path)
    chosen = parser.parse_args()
    codes = ({"before": chosen.before.resolve()} if chosen.before else {}) | {"now": _HERE}
    with tempfile.TemporaryDirectory() as folder:
        costs = asyncio.run(compare(codes, chosen.seconds, Path(folder)))
    print(describe())
    print("| targets | version | encoding and sending, ms | to that of one | all, ms | processes | MB | fps |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for (count, name), cost in costs.items():
        print(
            f"| {count} | {name} | {1e3 * cost.children:.1f} | {cost.children / costs[1, name].children:.2f} | "
            f"{1e3 * cost.all:.1f} | {cost.processes} | {cost.megabytes:.0f} | {cost.fps:.1f} |"
        )


if __name__ == "__main__":
    main()
