"""What runs in the worker process: ``python -m streamfx.filters.worker_process``, started by ``filters.worker``."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfx.core.errors import FilterError, StreamFXError
from streamfx.core.frames import AUDIO_CHANNELS
from streamfx.filters.base import Block
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import load
from streamfx.ipc.arena import Arena
from streamfx.ipc.parent import Parent


def main() -> int:
    parent = Parent()
    _be_first_to_go()
    hello = parent.receive()
    if hello is not None and "ahead" in hello:
        _limit_threads(hello["threads"])
        _import_ahead(hello["ahead"])
        hello = parent.receive()
    if hello is None:
        return 0
    arena = Arena.attach(hello.pop("arena"))
    spec = FilterSpec(**hello | {"size": tuple(hello["size"])})
    _limit_threads(spec.threads)
    try:
        host = FilterHost(spec)
    except StreamFXError as error:
        parent.send(kind="broken", error=str(error))
        return 1
    parent.send(kind="ready")
    try:
        while (request := parent.receive()) is not None:
            answer = _serve(host, request, arena, spec)
            parent.send(kind="done", id=request["id"], notes=host.notes(), **answer)
    except MemoryError:
        # What is left of the heap is not to be trusted with more frames.
        parent.send(kind="fatal", error=f"filter {spec.target} ran out of memory")
        return 1
    host.close()
    return 0


def _import_ahead(target: str) -> None:
    """What setting up this filter is going to import. What goes wrong now is told then."""
    with contextlib.suppress(StreamFXError, ImportError):
        for package in load(target).info.needs:
            importlib.import_module(package)


def _serve(host: FilterHost, request: dict[str, Any], arena: Arena, spec: FilterSpec) -> dict[str, Any]:
    """Runs one request; the arena has room for sound, then for the pictures that come in, and for those that go out."""
    if request["reset"]:
        host.reset()
    if "params" in request:
        host.configure(request["params"])
    pts = tuple(request["pts"])
    block = Block(video=_frames(arena, 0, len(pts), spec), pts=pts, quality=request["quality"])
    if "sound" in request:
        count, start = request["sound"]
        block = replace(block, audio=arena.array(0, (AUDIO_CHANNELS, count), np.float32), audio_pts=start)
    started = time.perf_counter()
    try:
        result = host.run(block, request["scale"])
    except FilterError as error:
        return {"error": str(error)}
    np.copyto(_frames(arena, 1, len(result.frames), spec), result.frames)
    return {"seconds": time.perf_counter() - started, "pts": result.pts}


def _frames(arena: Arena, half: int, count: int, spec: FilterSpec) -> NDArray[np.uint8]:
    place = spec.sound_bytes + half * ((arena.size - spec.sound_bytes) // 2)
    return arena.array(place, (count, spec.size[1], spec.size[0], 3))


def _be_first_to_go() -> None:
    """Tells Linux to end this process, not the stream, when the machine runs out of memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _limit_threads(threads: int) -> None:
    """Keeps number crunchers to their share, so that decoding and encoding get theirs."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if "OMP_WAIT_POLICY" not in os.environ:
        # By default threads that wait for each other spin for milliseconds. On a machine that is busy besides, they
        # do so on the core that the other one needs.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import cv2  # after the variable above is set

    cv2.setNumThreads(threads)


if __name__ == "__main__":
    sys.exit(main())
