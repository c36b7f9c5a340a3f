"""One stream: a source, perhaps a filter, and outputs, from opening to the last byte."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import logging
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamfx.core.clock import Clock, MonotonicClock
from streamfx.core.errors import SinkError, StreamFXError, UsageError
from streamfx.core.stats import SessionStats
from streamfx.filters.base import Params
from streamfx.filters.host import FilterSpec
from streamfx.filters.registry import lacking, parse_changes
from streamfx.filters.worker import InlineFilter, Standby, WorkerFilter, standby
from streamfx.media import hardware
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
from streamfx.media.encoders import AUTO
from streamfx.media.platforms import fitted
from streamfx.media.refused import RefusedOutput
from streamfx.media.url import MediaUrl
from streamfx.pipeline.canvas import FPS, SIZE, Canvas
from streamfx.pipeline.live import LiveFlow
from streamfx.pipeline.offline import OfflineFlow
from streamfx.pipeline.settings import FilterChoice, SessionSettings

logger = logging.getLogger(__name__)

SourceOpener = Callable[[SourceRequest], AbstractAsyncContextManager[Source]]
"""Opens a source, to be entered."""

STOP_GRACE = 1.2
"""Seconds outputs get to finish when the session is stopped from outside."""

_END_GRACE = 60.0
_MOST_NOTES = 100
_OPEN_GRACE = 3.0
_RESOLVE_TIMEOUT = 5.0


class SessionState(enum.StrEnum):
    """Where a session is in its life."""

    NEW = "new"
    OPENING = "opening"
    RUNNING = "running"
    FINISHING = "finishing"
    ENDED = "ended"


@dataclass(eq=False, slots=True)
class _Output:
    """One output at work. ``url``: None for a sink that the session's owner brought along."""

    id: int
    sink: Sink
    url: MediaUrl | None
    task: asyncio.Task[None] | None = None


@dataclass(eq=False, slots=True)
class _Filter:
    """One filter at work."""

    choice: FilterChoice
    runner: WorkerFilter | InlineFilter
    task: asyncio.Task[None] | None = None
    error: StreamFXError | None = None


class Session:
    """One live stream (or one file). ``await run()`` once; ``stop()``, ``set_params()``, ``switch_filter()``,
    ``add_output()`` and ``remove_output()`` at any time, from the loop.

    ``on_event`` is told ("source" | "filter" | "output" | "state", text) as things happen; no secrets in it.
    ``shared``: of the program, when it runs several sessions that listen on one port. ``sinks``: more outputs, real
    time ones that belong to the caller; with them a session may do without any of its own. ``open``: opens the source
    in place of what the settings' URL means.
    """

    def __init__(
        self,
        settings: SessionSettings,
        clock: Clock | None = None,
        on_event: Callable[[str, str], None] | None = None,
        shared: Shared | None = None,
        sinks: Sequence[Sink] = (),
        open: SourceOpener | None = None,
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
        self._encoders = Shared()
        self._refused: dict[str, str] = {}
        self._own_sinks = tuple(sinks)
        self._open = open
        self._ids = itertools.count(1)
        self._outputs: list[_Output] = []
        self._sinks: list[Sink] = []
        self._choice = settings.filter
        self._params = settings.filter.params if settings.filter else None
        self._filter: _Filter | None = None
        self._standby: Standby | None = None
        self._notes: list[str] = []
        self._switching = asyncio.Lock()
        self._source: Source | None = None
        self._format: OutputFormat | None = None
        self._flow: LiveFlow | OfflineFlow | None = None
        self._group: asyncio.TaskGroup | None = None
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
            realtime=self._has_live_outputs,
            sound_will_do=self._hears,
            on_state=self._source_state,
            shared=self._shared,
        )
        opened = False
        opening = self._open(request) if self._open else open_source(self._settings.source, request)
        try:
            async with (
                hardware.asking_ahead(self._settings.encode.encoder),
                asyncio.timeout(None) as self._opening,
                self._filter_ahead() as self._standby,
                opening as source,
            ):
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
        if self.state is SessionState.OPENING and self._source is None and self._opening is not None:
            self._opening.reschedule(asyncio.get_running_loop().time())

    def set_params(self, values: dict[str, Any]) -> None:
        """Changes filter parameters from the next block on, all at once. Raises ``UsageError``, changing nothing."""
        if self._choice is None or self._params is None:
            raise UsageError("this session has no filter; start it with one to set parameters")
        self._params = parse_changes(self._choice.type, values, base=self._params)
        if self._filter is not None:
            self._filter.runner.set_params(self._params)

    async def switch_filter(self, choice: FilterChoice | None) -> None:
        """Puts another filter (None: none) in place of the present one, which works on until the new one is ready.

        Raises ``FilterError`` if it cannot be set up, ``UsageError`` if the session is not a running live one or the
        filter is of another kind; the present one stays then.
        """
        _check_filter(choice)
        async with self._switching:
            flow, output, group = self._flow, self._format, self._group
            if not isinstance(flow, LiveFlow) or output is None or group is None or self._stopping.is_set():
                raise UsageError("the filter of a session can be switched only while it runs live; try again then")
            new = self._start_filter(group, choice, output) if choice is not None else None
            try:
                if new is not None:
                    await _until_ready(new)
            except BaseException:
                if new is not None and new.task is not None:
                    new.task.cancel()
                raise
            old, self._filter = self._filter, new
            self._choice, self._params = choice, choice.params if choice else None
            flow.switch(choice.type.info if choice else None, new.runner if new else None)
            if old is not None and old.task is not None:
                old.task.cancel()
            self._event("filter", f"switched to {choice.type.name}" if choice else "switched off")

    async def add_output(self, url: MediaUrl) -> int:
        """Starts to write to one more place, and returns its id. Raises ``UsageError`` or ``SinkError``."""
        await self._check_output(url, self._places())
        output, group = self._format, self._group
        if output is None or group is None or not isinstance(self._flow, LiveFlow) or self._stopping.is_set():
            raise UsageError("outputs can be added to a session only while it runs live; try again then")
        entry = _Output(next(self._ids), make_sink(url, fitted(url, output), self._encoders), url)
        self._outputs.append(entry)
        self._sinks.append(entry.sink)
        self._start_output(group, entry)
        self._event("output", f"{url} added")
        return entry.id

    async def remove_output(self, id: int) -> None:
        """Finishes an output and lets it go. Raises ``UsageError`` if there is none with this id."""
        entry = next((entry for entry in self._outputs if entry.id == id and entry.url is not None), None)
        if entry is None:
            raise UsageError(f"there is no output {id}; the list of outputs tells the numbers")
        self._outputs.remove(entry)
        self._sinks.remove(entry.sink)
        try:
            await entry.sink.finish(STOP_GRACE)
        finally:
            if entry.task is not None:
                entry.task.cancel()
            self._event("output", f"{entry.url} removed")

    @property
    def outputs(self) -> dict[int, MediaUrl]:
        """The outputs by URL, by their ids."""
        return {entry.id: entry.url for entry in self._outputs if entry.url is not None}

    @property
    def filter(self) -> FilterChoice | None:
        """The filter that was chosen last."""
        return self._choice

    @property
    def params(self) -> Params | None:
        """The present parameters of the filter."""
        return self._params

    @property
    def worker_pid(self) -> int | None:
        """The process id of the filter's worker, while it lives."""
        runner = self._filter.runner if self._filter else None
        return runner.pid if isinstance(runner, WorkerFilter) else None

    def stats(self) -> dict[str, Any]:
        """A snapshot in JSON values."""
        live = self._flow if isinstance(self._flow, LiveFlow) else None
        offline = self._flow if isinstance(self._flow, OfflineFlow) else None
        return {
            "session": self.id,
            "state": self.state.value,
            "source": str(self._settings.source),
            "source_state": self.source_state,
            "source_counters": self._source.stats() if self._source else {},
            "filter": self._choice.type.name if self._choice else None,
            "params": self._params.model_dump(mode="json") if self._params else None,
            "filter_ready": self._filter.runner.ready if self._filter else None,
            "notes": list(self._notes),
            "rung": live.rung if live else "full" if offline and self._choice else None,
            "shown": live.shown.value if live and live.shown else None,
            "delay_ms": 1e3 * live.delay if live else None,
            "position_s": offline.position if offline else None,
            **self.counts.as_dict(),
            "outputs": [{"id": entry.id, **entry.sink.stats()} for entry in self._outputs if entry.url is not None],
        }

    @property
    def _hears(self) -> bool:
        """Whether the filter is driven by sound."""
        return self._choice is not None and self._choice.type.info.takes == "audio"

    @property
    def _has_live_outputs(self) -> bool:
        return bool(self._own_sinks) or any(url.scheme in LIVE_SINKS for url in self._settings.outputs)

    async def _check_outputs(self) -> None:
        """Refuses what cannot work before anything is opened or written. Where others have the stream besides, an
        output that cannot be written keeps it from none of them, and a host may be found later."""
        _check_filter(self._settings.filter)
        if self._open is None:
            check_scheme(self._settings.source, output=False)
        if not self._settings.outputs and not self._own_sinks:
            raise UsageError("no output was given; name a file or a URL to write to")
        taken = self._places()
        for url in self._settings.outputs:
            try:
                await self._check_output(url, taken, resolve=False)
            except UsageError as error:
                self._refuse(url, error)
            taken.setdefault(_place(url), "another output")
        for url in self._settings.outputs:
            if url.host and url.scheme != "ndi" and not self._own_sinks:
                await _check_host(url)

    def _refuse(self, url: MediaUrl, error: UsageError) -> None:
        """Raises ``error`` unless the stream goes to others besides."""
        if not self._own_sinks:
            raise error
        logger.warning("output %s is left out: %s", url, error)
        self._refused[url.raw] = str(error)

    def _places(self) -> dict[Hashable, str]:
        """What is in use already, and as what."""
        taken = {_place(self._settings.source): "the input"}
        return taken | {_place(entry.url): "another output" for entry in self._outputs if entry.url is not None}

    async def _check_output(self, url: MediaUrl, taken: dict[Hashable, str], resolve: bool = True) -> None:
        from streamfx.media import srt
        from streamfx.media.output import check_writable
        from streamfx.media.target import check_stream

        check_scheme(url, output=True)
        if _place(url) in taken:
            raise UsageError(f"output {url} is {taken[_place(url)]} as well; name each place once")
        if url.scheme == "file":
            check_writable(url)
        elif url.scheme == "virtualcam":
            from streamfx.media.virtualcam import check_device

            await asyncio.to_thread(check_device, url)
        elif url.scheme == "ndi":
            from streamfx.media.ndi import check_output

            check_output(url)
        else:
            if url.scheme == "srt":
                srt.check_output(url)
            else:
                check_stream(url)
            if resolve and url.host:
                await _check_host(url)
        if self._settings.encode.encoder != AUTO:
            await hardware.pick(self._settings.encode.encoder, wait=True)

    async def _stream(self, source: Source) -> None:
        if self._hears:
            if not source.info.audio:
                name = self._choice.type.name if self._choice else ""
                raise UsageError(f"filter {name!r} is driven by sound, and this source has none; give one that has")
            if not source.info.video:
                source = Canvas(source, self._settings.size or SIZE, self._settings.fps or FPS, self._clock)
        self.info = source.info
        self._source = source
        self._format = output = self._output_format(source.info)
        self._outputs = [_Output(next(self._ids), sink, None) for sink in self._own_sinks]
        self._outputs += [_Output(next(self._ids), self._sink(url, output), url) for url in self._settings.outputs]
        self._sinks = [entry.sink for entry in self._outputs]
        async with asyncio.TaskGroup() as group:
            self._group = group
            for entry in self._outputs:
                self._start_output(group, entry)
            if self._choice is not None:
                self._filter = self._start_filter(group, self._choice, output)
            try:
                await self._flow_until_stopped(source, output)
                self._set(SessionState.FINISHING)
                grace = STOP_GRACE if self._interrupted or output.live else _END_GRACE
                async with asyncio.TaskGroup() as finishing:
                    for entry in self._outputs:
                        finishing.create_task(entry.sink.finish(grace))
            finally:
                self._group = None
                for service in (*self._outputs, self._filter):
                    if service is not None and service.task is not None:
                        service.task.cancel()
        self._note_failed_outputs()

    def _sink(self, url: MediaUrl, output: OutputFormat) -> Sink:
        """Of one output. Raises ``UsageError`` if it does not take such pictures."""
        if url.raw not in self._refused:
            try:
                return make_sink(url, fitted(url, output), self._encoders)
            except UsageError as error:
                self._refuse(url, error)
        return RefusedOutput(str(url), self._refused[url.raw])

    def _start_output(self, group: asyncio.TaskGroup, entry: _Output) -> None:
        entry.task = group.create_task(self._run_output(entry), name=f"output {entry.sink.name}")

    async def _run_output(self, entry: _Output) -> None:
        """Keeps an output going; ends the session when nobody is left to send to."""
        await self._guard(entry.sink.run())
        if all(other.task is not None and (other is entry or other.task.done()) for other in self._outputs):
            self._stopping.set()

    def _start_filter(self, group: asyncio.TaskGroup, choice: FilterChoice, output: OutputFormat) -> _Filter:
        first = self._filter is None and choice is self._choice
        params = (self._params if first and self._params else choice.params).model_dump(mode="json")
        spec = FilterSpec(
            choice.target,
            output.size,
            float(output.fps),
            _threads(choice, output.live),
            params,
            sound=choice.type.info.takes == "audio",
            live=output.live,
        )
        block = choice.type.info.largest_block
        if choice.inline:
            entry = _Filter(choice, InlineFilter(spec, block, self._filter_event))
        else:
            entry = _Filter(choice, WorkerFilter(spec, block, self._filter_event, self._standby if first else None))
        work = self._guard(entry.runner.run()) if first else self._try_filter(entry)
        entry.task = group.create_task(work, name=f"filter {choice.type.name}")
        return entry

    def _filter_ahead(self) -> AbstractAsyncContextManager[Standby | None]:
        """The filter's process, importing while the source is opened."""
        choice, source = self._choice, self._settings.source
        if choice is None or choice.inline:
            return contextlib.nullcontext()
        # Whether a source is live is known only when it is open; a guess that was wrong costs a process, no more.
        live = self._has_live_outputs or source.scheme != "file" or source.flag("realtime", False)
        return standby(choice.target, _threads(choice, live))

    async def _try_filter(self, entry: _Filter) -> None:
        """A filter that is switched to may fail to start: the one before stays, and the stream goes on."""
        try:
            await entry.runner.run()
        except StreamFXError as error:
            entry.error = error

    async def _flow_until_stopped(self, source: Source, output: OutputFormat) -> None:
        if not await self._outputs_open():
            return
        self._set(SessionState.RUNNING)
        runner = self._filter.runner if self._filter else None
        parts = (self._settings, output, runner, self._sinks, self.counts, self._clock)
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
        files = [entry.sink for entry in self._outputs if entry.url and entry.url.scheme not in LIVE_SINKS]
        async with asyncio.TaskGroup() as group:
            opened = group.create_task(_all_opened(files))
            stopped = group.create_task(self._stopping.wait())
            await asyncio.wait((opened, stopped), timeout=_OPEN_GRACE, return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            stopped.cancel()
        return not self._stopping.is_set()

    def _output_format(self, info: MediaInfo) -> OutputFormat:
        # Platforms want a sound track and get silence from a source that has none.
        audio = info.audio or (info.live and self._has_live_outputs)
        return OutputFormat(info.size, self._settings.fps or info.fps, audio, info.live, self._settings.encode)

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

    def _note_failed_outputs(self) -> None:
        failed = [entry.sink for entry in self._outputs if entry.sink.state is SinkState.FAILED]
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
        if event == "note" and len(self._notes) < _MOST_NOTES:
            self._notes.append(text)
        self._event("filter", f"{event}: {text}" if text else event)

    def _event(self, kind: str, text: str) -> None:
        logger.info("session=%s %s=%r", self.id, kind, text)
        self._on_event(kind, text)


def _check_filter(choice: FilterChoice | None) -> None:
    """Raises ``UsageError`` for a filter that a session cannot run."""
    if choice is None:
        return
    info = choice.type.info
    hint = lacking(choice.type)
    if hint:
        raise UsageError(f"filter {choice.type.name!r} cannot run here: {hint}")
    if info.gives != "video":
        raise UsageError(f"filter {choice.type.name!r} gives {info.gives}; so far a session runs filters to video only")


async def _until_ready(entry: _Filter) -> None:
    """Waits until a filter is set up. Raises what kept it from that."""
    assert entry.task is not None
    ready = asyncio.ensure_future(entry.runner.wait_ready())
    try:
        await asyncio.wait((ready, entry.task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    if entry.error is not None:
        raise entry.error
    if not entry.runner.ready:
        raise UsageError("the session ended before the filter was ready; start it again")


async def _all_opened(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        await sink.opened()


def _threads(choice: FilterChoice, live: bool) -> int:
    """A live stream leaves the other cores to decoding and encoding, unless it was told."""
    return choice.threads or (1 if live else _cores())


def _cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _place(url: MediaUrl) -> Hashable:
    """What two URLs of the same place have in common: for files that exist it sees through links."""
    if url.scheme in ("camera", "virtualcam") and url.path:
        return url.path
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
