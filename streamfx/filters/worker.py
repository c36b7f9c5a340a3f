"""Runs a filter where it cannot hurt the stream: in a process that may crash, hang or run out of memory.

``WorkerFilter`` restarts that process for as long as the stream lives; ``InlineFilter`` has the same face
and runs the filter in a thread, for debugging.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from streamfx.core.backoff import Backoff
from streamfx.core.errors import FilterCrashedError, FilterError, StreamFXError
from streamfx.filters.base import Block, Params
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.ipc.arena import Arena
from streamfx.ipc.child import Child, spawn

logger = logging.getLogger(__name__)

SETUP_TIMEOUT = 300.0
"""Seconds a filter may take to set up."""

_PROCESS = "streamfx.filters.worker_process"
_STABLE_AFTER = 30.0
_ERRORS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a filter gave for a block, at the frame size: pictures with the pts of the frames they belong to, perhaps of
    earlier frames, perhaps none. ``seconds``: what the filter itself took, resizing included."""

    block: Block
    seconds: float


class FilterRunner(Protocol):
    """Something that runs a filter. One block at a time."""

    @property
    def ready(self) -> bool:
        """Whether ``process`` would be taken now."""
        ...

    async def run(self) -> None:
        """Keeps the filter alive; to be run beside the stream and cancelled with it.
        Raises ``FilterError`` if the filter cannot be set up the first time."""
        ...

    async def wait_ready(self) -> None: ...

    def set_params(self, params: Params) -> None:
        """Takes effect with the next block, as a whole."""
        ...

    async def process(self, block: Block, *, scale: float = 1.0, reset: bool = False, timeout: float) -> Rendered:
        """Filters a block. Raises ``FilterError`` (this block failed) or ``FilterCrashedError``
        (the filter is gone and comes back by itself; watch ``ready``)."""
        ...


class _Runner:
    """What both runners share: being ready, parameters, and telling how it goes."""

    def __init__(self, spec: FilterSpec, on_event: Callable[[str, str], None] | None = None) -> None:
        self._spec = spec
        self._params = spec.params
        self._params_news: dict[str, Any] | None = None
        self._ready = asyncio.Event()
        self._on_event = on_event or (lambda event, text: None)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def set_params(self, params: Params) -> None:
        self._params = self._params_news = params.model_dump(mode="json")


class Standby:
    """A worker process that imports a filter, and the packages that it needs, while the source is still being opened:
    that takes most of the time until a filter is ready."""

    def __init__(self, child: Child, target: str, threads: int, ending: contextlib.AsyncExitStack) -> None:
        self._child, self._for, self._ending = child, (target, threads), ending

    def fits(self, spec: FilterSpec) -> bool:
        """Whether it is still there, and of use for ``spec``."""
        return self._child.returncode is None and self._for == (spec.target, spec.threads)

    @contextlib.asynccontextmanager
    async def handed_over(self) -> AsyncIterator[Child]:
        """The process is the caller's: it ends with this block, not with ``standby``'s."""
        async with self._ending.pop_all():
            yield self._child


@contextlib.asynccontextmanager
async def standby(target: str, threads: int) -> AsyncIterator[Standby | None]:
    """A worker that gets ready for ``target``; it ends with this block unless it was handed over. None if no process
    can be started now."""
    async with contextlib.AsyncExitStack() as ending:
        try:
            child = await ending.enter_async_context(spawn(_PROCESS, target))
        except OSError:
            yield None
            return
        child.send({"ahead": target, "threads": threads})
        yield Standby(child, target, threads, ending)


class WorkerFilter(_Runner):
    """The filter in a process of its own. ``block``: the most frames a call will bring. ``first``: the process for its
    first life, if it fits.

    ``on_event`` is told ("ready" | "restart", reason), and ("note", what the filter says).
    """

    def __init__(
        self,
        spec: FilterSpec,
        block: int,
        on_event: Callable[[str, str], None] | None = None,
        first: Standby | None = None,
    ) -> None:
        super().__init__(spec, on_event)
        self._first = first
        self._half = block * spec.size[0] * spec.size[1] * 3
        self._child: Child | None = None
        self._arena: Arena | None = None
        self._gone: asyncio.Future[str] | None = None
        self._next_id = 0
        self._errors = 0

    @property
    def pid(self) -> int | None:
        """The process id of the worker, while there is one."""
        return self._child.pid if self._child else None

    async def run(self) -> None:
        backoff = Backoff(first=0.25, longest=30.0)
        been_ready = False
        while True:
            started = time.monotonic()
            try:
                reason = await self._live()
            except (StreamFXError, OSError) as error:
                if not been_ready:
                    raise _as_filter_error(error, self._spec.target) from error
                reason = str(error)
            been_ready = True
            if time.monotonic() - started > _STABLE_AFTER:
                backoff.reset()
            self._on_event("restart", reason)
            logger.warning("filter=%s restart reason=%r", self._spec.target, reason)
            await asyncio.sleep(backoff.next())

    async def _live(self) -> str:
        """One life of the worker, from start to death. Returns what it died of."""
        arena = Arena.create(self._spec.sound_bytes + 2 * self._half)
        try:
            async with self._process() as child:
                self._child = child
                await self._set_up(child, arena)
                self._arena = arena
                self._gone = asyncio.get_running_loop().create_future()
                self._errors = 0
                self._ready.set()
                self._on_event("ready", "")
                return await self._gone
        finally:
            self._ready.clear()
            self._child = self._arena = None
            if self._gone is not None and not self._gone.done():
                self._gone.cancel()
            arena.close()

    def _process(self) -> contextlib.AbstractAsyncContextManager[Child]:
        first, self._first = self._first, None
        fits = first is not None and first.fits(self._spec)
        return first.handed_over() if first is not None and fits else spawn(_PROCESS, self._spec.target)

    async def _set_up(self, child: Child, arena: Arena) -> None:
        spec = dataclasses.asdict(self._spec) | {"params": self._params}
        self._params_news = None
        child.send(spec | {"arena": str(arena.path)})
        try:
            async with asyncio.timeout(SETUP_TIMEOUT):
                answer = await child.receive()
        except TimeoutError:
            raise FilterError(f"filter {self._spec.target} was not set up within {SETUP_TIMEOUT:.0f} s") from None
        arena.unlink()
        if answer is None:
            await child.finish(timeout=1.0)
            raise FilterError(f"filter {self._spec.target} died while it was set up{_cause(child)}")
        if answer["kind"] != "ready":
            raise FilterError(answer["error"])

    async def process(self, block: Block, *, scale: float = 1.0, reset: bool = False, timeout: float) -> Rendered:
        child, arena, gone = self._child, self._arena, self._gone
        if not self.ready or child is None or arena is None or gone is None:
            raise FilterCrashedError(f"filter {self._spec.target} is being restarted")
        frames = block.frames
        arena.array(self._spec.sound_bytes, frames.shape)[:] = frames
        self._next_id += 1
        request = {"id": self._next_id, "pts": block.pts, "quality": block.quality, "scale": scale, "reset": reset}
        if self._spec.sound and block.audio is not None:
            arena.array(0, block.audio.shape, np.float32)[:] = block.audio
            request["sound"] = block.audio.shape[1], block.audio_pts
        if self._params_news is not None:
            request["params"] = self._params_news
            self._params_news = None
        child.send(request)
        try:
            async with asyncio.timeout(timeout):
                answer = await child.receive()
                # A call that was cancelled has left its answer behind.
                while answer is not None and answer.get("id", request["id"]) != request["id"]:
                    answer = await child.receive()
        except TimeoutError:
            raise self._lost(f"it hung for more than {timeout:.1f} s") from None
        if answer is None:
            await child.finish(timeout=1.0)
            raise self._lost(f"it died{_cause(child)}")
        return self._result(answer, block, arena)

    def _result(self, answer: dict[str, Any], block: Block, arena: Arena) -> Rendered:
        for note in answer.get("notes", ()):
            self._on_event("note", note)
        if answer["kind"] == "fatal":
            raise self._lost(answer["error"])
        if "error" in answer:
            self._errors += 1
            if self._errors >= _ERRORS_IN_A_ROW:
                raise self._lost(answer["error"])
            raise FilterError(answer["error"])
        self._errors = 0
        pts = tuple(answer["pts"])
        place = self._spec.sound_bytes + self._half
        pictures = np.array(arena.array(place, (len(pts), *block.frames.shape[1:])))
        return Rendered(block.with_video(pictures, pts), answer["seconds"])

    def _lost(self, reason: str) -> FilterCrashedError:
        self._ready.clear()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(reason)
        return FilterCrashedError(f"filter {self._spec.target} is restarted: {reason}")


class InlineFilter(_Runner):
    """The filter in a thread of this process, for debugging: breakpoints work, a crash is ours too, and a
    hang cannot be ended."""

    def __init__(self, spec: FilterSpec, block: int = 1, on_event: Callable[[str, str], None] | None = None) -> None:
        super().__init__(spec, on_event)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="filter")
        self._host: FilterHost | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._host = await loop.run_in_executor(self._thread, FilterHost, self._spec)
            self._ready.set()
            self._on_event("ready", "")
            await loop.create_future()
        finally:
            self._ready.clear()
            if self._host is not None:
                with contextlib.suppress(RuntimeError):
                    self._thread.submit(self._host.close)
            self._thread.shutdown(wait=False)

    async def process(self, block: Block, *, scale: float = 1.0, reset: bool = False, timeout: float) -> Rendered:
        host = self._host
        if host is None or not self.ready:
            raise FilterCrashedError(f"filter {self._spec.target} is being started")
        news, self._params_news = self._params_news, None

        def work() -> Rendered:
            started = time.perf_counter()
            if reset:
                host.reset()
            if news is not None:
                host.configure(news)
            result = host.run(block, scale)
            return Rendered(result, time.perf_counter() - started)

        try:
            async with asyncio.timeout(timeout):
                rendered = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise FilterCrashedError(f"filter {self._spec.target} hung for more than {timeout:.1f} s") from None
        except MemoryError as error:
            raise FilterError(f"filter {self._spec.target} ran out of memory") from error
        for note in host.notes():
            self._on_event("note", note)
        return rendered


def _as_filter_error(error: Exception, target: str) -> StreamFXError:
    if isinstance(error, StreamFXError):
        return error
    return FilterError(f"filter {target} could not be started: {error}")


def _cause(child: Child) -> str:
    """How a dead child ended, as the tail of a sentence."""
    if child.last_words:
        return f": {child.last_words}"
    return f" (exit status {child.returncode})" if child.returncode is not None else ""
