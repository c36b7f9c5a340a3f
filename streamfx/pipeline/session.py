"""One stream: a source, perhaps a filter, and outputs, from opening to the last byte."""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Hashable, Sequence
from pathlib import Path
from typing import Any

from streamfx.core.clock import Clock, MonotonicClock
from streamfx.core.errors import SinkError, StreamFXError, UsageError
from streamfx.core.stats import SessionStats
from streamfx.filters.host import FilterSpec
from streamfx.filters.registry import parse_params
from streamfx.filters.worker import InlineFilter, WorkerFilter
from streamfx.media.base import (
    LIVE_SINKS,
    MediaInfo,
    OutputFormat,
    Shared,
    Sink,
    SinkState,
    Source,
    SourceRequest,
    check_scheme,
    make_sink,
    open_source,
)
from streamfx.media.url import MediaUrl
from streamfx.pipeline.live import LiveFlow
from streamfx.pipeline.offline import OfflineFlow
from streamfx.pipeline.settings import FilterChoice, SessionSettings

logger = logging.getLogger(__name__)

STOP_GRACE = 1.2
"""Seconds outputs get to finish when the session is stopped from outside."""

_END_GRACE = 60.0
_OPEN_GRACE = 3.0
_RESOLVE_TIMEOUT = 5.0


class SessionState(enum.StrEnum):
    """Where a session is in its life."""

    NEW = "new"
    OPENING = "opening"
    RUNNING = "running"
    FINISHING = "finishing"
    ENDED = "ended"


class Session:
    """One live stream (or one file). ``await run()`` once; ``stop()`` and ``set_params()`` at any time, from the loop.

    ``on_event`` is told ("source" | "filter" | "output" | "state", text) as things happen; no secrets in it.
    ``shared``: of the program, when it runs several sessions that listen on one port.
    """

    def __init__(
        self,
        settings: SessionSettings,
        clock: Clock | None = None,
        on_event: Callable[[str, str], None] | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:8]
        self.state = SessionState.NEW
        self.counts = SessionStats()
        self.info: MediaInfo | None = None
        self.source_state = ""
        self._settings = settings
        self._clock = clock or MonotonicClock()
        self._on_event = on_event or (lambda kind, text: None)
        self._shared = shared or Shared()
        self._sinks: list[Sink] = []
        self._runner: WorkerFilter | InlineFilter | None = None
        self._source: Source | None = None
        self._flow: LiveFlow | OfflineFlow | None = None
        self._params = settings.filter.params if settings.filter else None
        self._stopping = asyncio.Event()
        self._interrupted = False
        self._opening: asyncio.Timeout | None = None
        self._error: StreamFXError | None = None

    async def run(self) -> None:
        """Runs until the source ends or ``stop`` is called, and finishes every output.

        Raises ``UsageError`` for what cannot be done as asked (before any output is touched), ``SourceError``,
        ``FilterError`` or ``SinkError`` for what went wrong on the way (after the outputs were finished).
        """
        await self._check_outputs()
        if self._interrupted:
            self._set(SessionState.ENDED)
            return
        self._set(SessionState.OPENING)
        request = SourceRequest(
            clock=self._clock,
            size=self._settings.size,
            realtime=any(url.scheme in LIVE_SINKS for url in self._settings.outputs),
            on_state=self._source_state,
            shared=self._shared,
        )
        opened = False
        try:
            async with asyncio.timeout(None) as self._opening, open_source(self._settings.source, request) as source:
                opened = True
                self._opening.reschedule(None)
                await self._stream(source)
        except TimeoutError:
            if opened or not self._interrupted:
                raise
        finally:
            self._set(SessionState.ENDED)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the session soon: outputs are finished within ``STOP_GRACE`` seconds."""
        self._interrupted = True
        self._stopping.set()
        if self.state in (SessionState.NEW, SessionState.OPENING) and self._opening is not None:
            self._opening.reschedule(asyncio.get_running_loop().time())

    def set_params(self, values: dict[str, Any]) -> None:
        """Changes filter parameters from the next block on, all at once. Raises ``UsageError``, changing nothing."""
        choice = self._settings.filter
        if choice is None or self._params is None:
            raise UsageError("this session has no filter; start it with one to set parameters")
        self._params = parse_params(choice.type, values, base=self._params)
        if self._runner is not None:
            self._runner.set_params(self._params)

    @property
    def worker_pid(self) -> int | None:
        """The process id of the filter's worker, while it lives."""
        return self._runner.pid if isinstance(self._runner, WorkerFilter) else None

    def stats(self) -> dict[str, Any]:
        """A snapshot in JSON values."""
        live = self._flow if isinstance(self._flow, LiveFlow) else None
        return {
            "session": self.id,
            "state": self.state.value,
            "source": str(self._settings.source),
            "source_state": self.source_state,
            "source_counters": self._source.stats() if self._source else {},
            "filter": self._settings.filter.type.name if self._settings.filter else None,
            "params": self._params.model_dump(mode="json") if self._params else None,
            "filter_ready": self._runner.ready if self._runner else None,
            "rung": live.rung if live else None,
            "delay_ms": 1e3 * live.delay if live else None,
            "position_s": self._flow.position if isinstance(self._flow, OfflineFlow) else None,
            **self.counts.as_dict(),
            "outputs": [sink.stats() for sink in self._sinks],
        }

    async def _check_outputs(self) -> None:
        """Refuses what cannot work before anything is opened or written."""
        from streamfx.media.output import check_stream, check_writable

        choice = self._settings.filter
        if choice is not None and (choice.type.info.takes, choice.type.info.gives) != ("video", "video"):
            raise UsageError(
                f"filter {choice.type.name!r} takes {choice.type.info.takes} and gives {choice.type.info.gives}; "
                "so far a session runs filters from video to video only"
            )
        check_scheme(self._settings.source, output=False)
        if not self._settings.outputs:
            raise UsageError("no output was given; name a file or a URL to write to")
        taken = {_place(self._settings.source): "the input"}
        for url in self._settings.outputs:
            check_scheme(url, output=True)
            if _place(url) in taken:
                raise UsageError(f"output {url} is {taken[_place(url)]} as well; name each place once")
            taken[_place(url)] = "another output"
            if url.scheme == "file":
                check_writable(url)
            else:
                check_stream(url)
        for url in self._settings.outputs:
            if url.scheme != "file":
                await _check_host(url)

    async def _stream(self, source: Source) -> None:
        self.info = source.info
        self._source = source
        output = self._output_format(source.info)
        self._sinks = [make_sink(url, output) for url in self._settings.outputs]
        async with asyncio.TaskGroup() as group:
            services = [group.create_task(self._guard(sink.run()), name=f"output {sink.name}") for sink in self._sinks]
            if self._settings.filter is not None:
                self._runner = self._make_runner(self._settings.filter, output)
                services.append(group.create_task(self._guard(self._runner.run()), name="filter"))
            services.append(group.create_task(self._watch_outputs(services[: len(self._sinks)]), name="watch"))
            try:
                await self._flow_until_stopped(source, output)
                self._set(SessionState.FINISHING)
                grace = STOP_GRACE if self._interrupted or output.live else _END_GRACE
                async with asyncio.TaskGroup() as finishing:
                    for sink in self._sinks:
                        finishing.create_task(sink.finish(grace))
            finally:
                for service in services:
                    service.cancel()
        self._note_failed_outputs()

    async def _flow_until_stopped(self, source: Source, output: OutputFormat) -> None:
        if not await self._outputs_open():
            return
        self._set(SessionState.RUNNING)
        parts = (self._settings, output, self._runner, self._sinks, self.counts, self._clock)
        self._flow = LiveFlow(*parts, self._event) if output.live else OfflineFlow(*parts)
        async with asyncio.TaskGroup() as group:
            flow = group.create_task(self._guard(self._flow.run(source)), name="flow")
            stopped = group.create_task(self._stopping.wait(), name="stop")
            await asyncio.wait((flow, stopped), return_when=asyncio.FIRST_COMPLETED)
            flow.cancel()
            stopped.cancel()

    async def _outputs_open(self) -> bool:
        """Waits a moment for the files, so that their first frames are not missed. Live outputs come in when
        they can. Returns whether to go on."""
        files = [s for s, url in zip(self._sinks, self._settings.outputs, strict=True) if url.scheme not in LIVE_SINKS]
        async with asyncio.TaskGroup() as group:
            opened = group.create_task(_all_opened(files))
            stopped = group.create_task(self._stopping.wait())
            await asyncio.wait((opened, stopped), timeout=_OPEN_GRACE, return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            stopped.cancel()
        return not self._stopping.is_set()

    def _output_format(self, info: MediaInfo) -> OutputFormat:
        # Platforms want a sound track and get silence from a source that has none.
        audio = info.audio or (info.live and any(url.scheme in LIVE_SINKS for url in self._settings.outputs))
        return OutputFormat(info.size, self._settings.fps or info.fps, audio, info.live, self._settings.encode)

    def _make_runner(self, choice: FilterChoice, output: OutputFormat) -> WorkerFilter | InlineFilter:
        params = (self._params or choice.params).model_dump(mode="json")
        spec = FilterSpec(choice.target, output.size, float(output.fps), choice.threads, params)
        kind = InlineFilter if choice.inline else WorkerFilter
        return kind(spec, choice.type.info.block, self._filter_event)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a part; its failure ends the session in good order instead of tearing everything down."""
        try:
            await work
        except StreamFXError as error:
            self._fail(error)
        except BaseExceptionGroup as group:
            known, others = group.split(StreamFXError)
            if known is None or others is not None:
                raise
            self._fail(_first(known))

    def _fail(self, error: StreamFXError) -> None:
        self._error = self._error or error
        self._stopping.set()

    async def _watch_outputs(self, outputs: Sequence[asyncio.Task[None]]) -> None:
        """Ends the session when nobody is left to send to."""
        await asyncio.wait(outputs)
        self._stopping.set()

    def _note_failed_outputs(self) -> None:
        failed = [sink for sink in self._sinks if sink.state is SinkState.FAILED]
        if failed and self._error is None:
            self._error = SinkError("; ".join(f"{sink.name} could not be written: {sink.error}" for sink in failed))

    def _set(self, state: SessionState) -> None:
        self.state = state
        self._event("state", state.value)

    def _source_state(self, text: str) -> None:
        self.source_state = text
        self._event("source", text)

    def _filter_event(self, event: str, text: str) -> None:
        if event == "restart":
            self.counts.count("worker_restarts")
        self._event("filter", f"{event}: {text}" if text else event)

    def _event(self, kind: str, text: str) -> None:
        logger.info("session=%s %s=%r", self.id, kind, text)
        self._on_event(kind, text)


async def _all_opened(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        await sink.opened()


def _place(url: MediaUrl) -> Hashable:
    """What two URLs of the same place have in common: for files that exist it sees through links."""
    if url.scheme != "file":
        return url.raw
    try:
        status = Path(url.path).stat()
    except OSError:
        return os.path.realpath(url.path)
    return status.st_dev, status.st_ino


async def _check_host(url: MediaUrl) -> None:
    """Raises ``SinkError`` if the host of a live output has no address: a typing error, most likely."""
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT):
            await asyncio.get_running_loop().getaddrinfo(url.host, url.port or 1935, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise SinkError(f"{url}: the host {url.host!r} cannot be found; check its spelling and your network") from error


def _first(group: BaseExceptionGroup[StreamFXError]) -> StreamFXError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StreamFXError)
    return error
