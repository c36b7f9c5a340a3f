"""One session of a server: its pipeline comes and goes with its source; its viewers, outputs and settings stay."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from streamfx.core.backoff import Backoff
from streamfx.core.clock import Clock
from streamfx.core.errors import FilterError, StreamFXError, UsageError
from streamfx.core.slate import Slate
from streamfx.core.stats import Histogram, SessionStats
from streamfx.filters.base import Params
from streamfx.filters.registry import parse_changes, setup_fields
from streamfx.media.base import MediaInfo, Shared
from streamfx.media.door import Door
from streamfx.media.hls import HlsPreview
from streamfx.media.rtmp.publish import Publisher
from streamfx.media.rtmp.source import deliver
from streamfx.media.url import MediaUrl
from streamfx.media.webrtc.broadcast import Broadcast
from streamfx.media.webrtc.offer import OfferError, read_offer
from streamfx.media.webrtc.peer import Peer, PeerSettings
from streamfx.pipeline.session import Session
from streamfx.pipeline.settings import FilterChoice, SessionSettings
from streamfx.server.events import EventHub
from streamfx.server.gauge import Gauge
from streamfx.server.settings import ServeConfig, SessionConfig

logger = logging.getLogger(__name__)

State = Literal["idle", "starting", "running", "ended"]

_METER_PERIOD = 0.5
_STABLE_AFTER = 20.0
_CLOSE_TIMEOUT = 4.0


class FullError(StreamFXError):
    """There is no room for another viewer or session now."""


class ConflictError(StreamFXError):
    """What is asked for does not go together with what the session is or does at present."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many more viewers the server as a whole would take; asked before each."""

    left: Callable[[], int]


class LiveSession:
    """Run it with ``run`` until ``close``. ``temporary``: made over HTTP, ended when nobody uses it for long."""

    def __init__(
        self, id: str, config: SessionConfig, server: ServeConfig, clock: Clock, room: Room, temporary: bool = False
    ) -> None:
        self.id = id
        self.config = config
        self.temporary = temporary
        self.state: State = "idle"
        self.events = EventHub()
        self.glass = Histogram()
        """Latencies that pages measured, from capture to glass."""
        self.broadcast = Broadcast(server.webrtc.broadcast_settings(), clock, Slate)
        settings = server.webrtc.broadcast_settings()
        self.hls = HlsPreview(self.broadcast, clock, self._rate, lambda size: settings.bitrate("high", size))
        self.door = Door(self._door_changed)
        self.rtmp_key = config.rtmp_key.get_secret_value() if config.rtmp_key else secrets.token_urlsafe(18)
        self.peers: dict[str, Peer] = {}
        self.used_at = clock.now()
        """Clock seconds when somebody published or watched last."""
        self._server = server
        self._clock = clock
        self._room = room
        self._peer_settings: PeerSettings = server.webrtc.peer_settings()
        self._settings = server.settings_of(id, config)
        self._choice = self._settings.filter
        self._params: Params | None = self._choice.params if self._choice else None
        self._outputs: dict[int, MediaUrl] = dict(enumerate(self._settings.outputs, start=1))
        self._next_output = len(self._outputs) + 1
        self._pipeline: Session | None = None
        self._info: MediaInfo | None = None
        self._source_state = ""
        self._gauge = Gauge()
        self._meter: dict[str, Any] = {}
        self._opening = 0
        self._group: asyncio.TaskGroup | None = None
        self._ready = asyncio.Event()
        self._closing = asyncio.Event()
        self._draining = False
        self._rest = asyncio.Event()
        """Set while no pipeline runs."""
        self._rest.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, shared: Shared) -> None:
        """Keeps the session going until ``close``."""
        try:
            async with self.broadcast.running(), asyncio.TaskGroup() as group:
                self._group = group
                self._tasks = [
                    group.create_task(self._keep_streaming(shared), name=f"pipeline {self.id}"),
                    group.create_task(self._measure(), name=f"meter {self.id}"),
                    group.create_task(self.hls.run(), name=f"hls {self.id}"),
                ]
                self._ready.set()
                try:
                    await self._closing.wait()
                finally:
                    self._group = None
                    await asyncio.shield(self._end_all())
        finally:
            self._set("ended")
            self.events.close()

    async def ready(self) -> None:
        """Waits until peers can be taken."""
        await self._ready.wait()

    def close(self) -> None:
        """Ends the session soon."""
        self._closing.set()

    async def drain(self) -> None:
        """Takes nobody in any more, tells who publishes and watches that it ends, and waits until all that came has
        gone out. ``close`` is still to be called, and may be at any time."""
        self._draining = True
        for peer in list(self.peers.values()):
            peer.end("the server ends")
        if self.config.published:
            self.door.end()
        elif self._pipeline is not None:
            self._pipeline.stop()
        await self._rest.wait()

    def abort(self) -> None:
        """Ends the session at once; what is on its way is lost."""
        self._closing.set()
        for task in self._tasks:
            task.cancel()

    async def _end_all(self) -> None:
        for peer in list(self.peers.values()):
            peer.end("the session was ended")
        if self._pipeline is not None:
            self._pipeline.stop()
            await asyncio.wait(self._tasks[:1], timeout=_CLOSE_TIMEOUT)
        for task in self._tasks:
            task.cancel()

    # The pipeline

    async def _keep_streaming(self, shared: Shared) -> None:
        """Runs the pipeline whenever there is a source for it, for ever."""
        backoff = Backoff(1.0, 30.0)
        while not self._closing.is_set():
            if self._draining:
                await self._closing.wait()
                return
            if self.config.published:
                self._set("idle")
                await self.door.wait_for_visitor()
            self._set("starting")
            started = time.monotonic()
            ended_well = await self._stream_once(shared)
            if ended_well and not self.config.published:
                self._source_said("the source has ended")
                self._set("ended")
                await self._closing.wait()
            if time.monotonic() - started > _STABLE_AFTER:
                backoff.reset()
            if not ended_well:
                self._set("idle")
                await asyncio.sleep(backoff.next())

    async def _stream_once(self, shared: Shared) -> bool:
        """One life of the pipeline. Returns whether it ended without an error."""
        choice = replace(self._choice, params=self._params) if self._choice and self._params else self._choice
        outputs = tuple(_fresh(url) for url in self._outputs.values())
        settings = replace(self._settings, filter=choice, outputs=outputs)
        opener = (lambda request: self.door.open(request, self._server.grace_s)) if self.config.published else None
        self._pipeline = session = Session(
            settings, self._clock, self._pipeline_said, shared, sinks=[self.broadcast.sink()], open=opener
        )
        self._rest.clear()
        try:
            await session.run()
        except FilterError as error:
            self._filter_failed(str(error))
            return False
        except StreamFXError as error:
            self._source_said(str(error))
            return False
        except BaseExceptionGroup:
            logger.exception("session=%s pipeline failed", self.id)
            self._source_said("the stream broke off for a reason that is in the server's log; it is started again")
            return False
        finally:
            self._pipeline = self._info = None
            self._rest.set()
            self._gauge.clear()
            self._meter = {}
        return True

    def _filter_failed(self, text: str) -> None:
        """A stream without its filter is better than none, unless the filter is there to hide something."""
        self.events.publish("filter", {"text": text})
        if self.config.fallback == "source" and not self._hears:
            self._choice = self._params = None
            self._announce()

    def _pipeline_said(self, kind: str, text: str) -> None:
        if kind == "state" and text == "running" and self._pipeline is not None:
            self._info = self._pipeline.info
            self._set("running")
        elif kind == "source":
            self._source_said(text)
        elif kind == "filter":
            self.events.publish("filter", {"text": text})

    def _source_said(self, text: str) -> None:
        self._source_state = text
        self.events.publish("source", {"text": text})

    def _set(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.events.publish("state", {"state": state})
            self._announce()

    def _announce(self) -> None:
        self.events.publish("session", self.describe())

    def _rate(self) -> Fraction:
        """Frames per second of what is shown; while nothing is, a usual rate."""
        if self._settings.fps:
            return self._settings.fps
        return self._info.fps if self._info and self._info.video else Fraction(30)

    @property
    def _hears(self) -> bool:
        """Whether the filter is driven by sound, so that sound alone will do."""
        return self._choice is not None and self._choice.type.info.takes == "audio"

    @property
    def pipeline(self) -> Session | None:
        """The pipeline, while it runs."""
        return self._pipeline if self.state == "running" else None

    # What may be changed

    @property
    def filter_name(self) -> str:
        """Of the present filter; ``none`` without one."""
        return self._choice.type.name if self._choice else "none"

    @property
    def params(self) -> dict[str, Any]:
        """The filter's parameters as JSON values, but what is read only at its set-up; empty without a filter."""
        if self._choice is None or self._params is None:
            return {}
        return self._params.model_dump(mode="json", exclude=set(setup_fields(self._choice.type)))

    def set_params(self, values: dict[str, Any]) -> dict[str, Any]:
        """Changes parameters from the next frame on, all at once. Raises ``UsageError``, changing nothing."""
        if self._choice is None:
            raise UsageError("this session has no filter at present; choose one first")
        params = parse_changes(self._choice.type, values, base=self._params)
        if self._pipeline is not None and self._pipeline.filter is not None:
            self._pipeline.set_params(values)
        self._params = params
        self.events.publish("params", self.params)
        return self.params

    async def switch_filter(self, choice: FilterChoice | None) -> None:
        """Puts another filter in place of the present one. Raises ``UsageError`` or ``FilterError``."""
        if self.pipeline is not None:
            await self.pipeline.switch_filter(choice)
        elif self.state == "starting":
            raise ConflictError("the stream is just being started; try again in a moment")
        self._choice, self._params = choice, choice.params if choice else None
        self._announce()

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Every output with its state; those of a session without a stream wait."""
        pipeline = self._pipeline
        ids = {url.raw: id for id, url in pipeline.outputs.items()} if pipeline else {}
        stats = {entry["id"]: entry for entry in pipeline.stats()["outputs"]} if pipeline else {}
        return [_describe_output(id, url, stats.get(ids.get(url.raw, -1))) for id, url in self._outputs.items()]

    def output_id(self, url: MediaUrl) -> int | None:
        """The id of the output that goes there, if there is one."""
        return next((id for id, other in self._outputs.items() if other.raw == url.raw), None)

    async def add_output(self, url: MediaUrl) -> int:
        """Starts to push to one more place. Raises ``UsageError`` or ``SinkError``."""
        if self.output_id(url) is not None:
            raise ConflictError(f"{url} is an output of this session already; name each place once")
        if self.pipeline is not None:
            await self.pipeline.add_output(_fresh(url))
        elif self.state == "starting":
            raise ConflictError("the stream is just being started; try again in a moment")
        id = self._next_output
        self._next_output += 1
        self._outputs[id] = url
        self._announce()
        return id

    async def remove_output(self, id: int) -> bool:
        """Finishes an output. Returns False if there is none with this id."""
        url = self._outputs.pop(id, None)
        if url is None:
            return False
        if self._pipeline is not None:
            for theirs, other in self._pipeline.outputs.items():
                if other.raw == url.raw:
                    await self._pipeline.remove_output(theirs)
        self._announce()
        return True

    # Who publishes and who watches

    def _door_changed(self) -> None:
        self.used_at = self._clock.now()
        if self.door.visitor is None:
            self._source_said("the publisher left, waiting for it to return")
        else:
            self._source_said(f"publishing by {self.door.visitor.kind.upper()}")
        self._announce()

    async def publish_rtmp(self, publisher: Publisher) -> None:
        """Takes an RTMP publisher in, until it leaves."""
        if not self.config.published:
            raise ConflictError("this session gets its stream from elsewhere")
        visit = self.door.enter("rtmp", retire=lambda: publisher.end("another publisher took this stream over"))
        try:
            await deliver(publisher, visit, self._clock)
        finally:
            visit.leave()

    async def open_peer(self, kind: Literal["whip", "whep"], sdp: str) -> tuple[Peer, str]:
        """Answers an offer. Raises ``OfferError``, ``ConflictError`` or ``FullError``."""
        offer = read_offer(sdp)
        if kind == "whip" and not offer.sends("video") and not (self._hears and offer.sends("audio")):
            raise OfferError("the offer sends no video; offer it as sendonly or sendrecv, or watch by WHEP", 422)
        if kind == "whep" and not offer.receives("video"):
            raise OfferError("the offer receives no video; offer it as recvonly, or publish by WHIP", 422)
        if kind == "whip" and not self.config.published:
            raise ConflictError("this session gets its stream from elsewhere; publish to another one")
        if offer.receives("video"):
            self._check_room()
        if self._group is None or self._draining:
            raise ConflictError("this session has ended")
        self._opening += 1
        try:
            door = self.door if kind == "whip" else None
            broadcast = self.broadcast if offer.receives("video") else None
            peer = Peer(kind, self._peer_settings, self._clock, door, broadcast)
            answer = await peer.accept(offer)
        finally:
            self._opening -= 1
        if self._group is None or self._draining:
            await peer.close()
            raise ConflictError("this session has ended")
        self.peers[peer.id] = peer
        self._group.create_task(self._keep_peer(peer), name=f"peer {kind}")
        self._viewers_changed()
        return peer, answer

    def _check_room(self) -> None:
        watching = self.viewers + self._opening
        if watching >= self._server.limits.viewers_per_session or self._room.left() <= self._opening:
            raise FullError("there is no room for another viewer now; try again later")

    async def _keep_peer(self, peer: Peer) -> None:
        try:
            await peer.run()
        except BaseExceptionGroup:
            logger.exception("session=%s peer failed", self.id)
        finally:
            self.peers.pop(peer.id, None)
            self._viewers_changed()

    def _viewers_changed(self) -> None:
        self.used_at = self._clock.now()
        self.events.publish("viewers", {"viewers": self.viewers})

    @property
    def viewers(self) -> int:
        return self.broadcast.viewers

    @property
    def busy(self) -> bool:
        """Whether somebody publishes or watches, or it has a source of its own."""
        return bool(self.peers) or self.hls.wanted or self.door.visitor is not None or not self.config.published

    # What there is to know

    def describe(self) -> dict[str, Any]:
        """JSON values of what the session is; addresses for publishing are added by the interface."""
        info = self._info
        choice = self._choice
        return {
            "id": self.id,
            "state": self.state,
            "source": str(self.config.source) if self.config.published else str(self._settings.source),
            "source_state": self._source_state,
            "publisher": {"kind": self.door.visitor.kind} if self.door.visitor else None,
            "viewers": self.viewers,
            "size": list(info.size) if info else None,
            "fps": float(self._settings.fps or info.fps) if info else None,
            "budget_ms": self.config.budget_ms,
            "filter": {"name": choice.type.name, "params": self.params} if choice else None,
            "outputs": self.outputs,
        }

    @property
    def counts(self) -> SessionStats | None:
        """What the pipeline counts, while it runs."""
        return self._pipeline.counts if self._pipeline else None

    @property
    def settings(self) -> SessionSettings:
        return self._settings

    def meter(self) -> dict[str, Any]:
        """The newest reading of the live meter."""
        return self._meter

    async def _measure(self) -> None:
        outputs: list[dict[str, Any]] = []
        while True:
            await asyncio.sleep(_METER_PERIOD)
            self._meter = self._read_meter()
            if self.events.listeners:
                self.events.publish("stats", self._meter)
                changed = [entry for entry in self.outputs if entry not in outputs]
                outputs = self.outputs
                for entry in changed:
                    self.events.publish("output", entry)
            if self._may_follow_size() and self.door.outgrown(self._clock.now()):
                self._source_said("the publisher's pictures have another size; the stream follows")
                self.door.end()

    def _may_follow_size(self) -> bool:
        return self.pipeline is not None and self._settings.size is None and not self._outputs

    def _read_meter(self) -> dict[str, Any]:
        pipeline = self._pipeline
        reading = self._gauge.read(self._clock.now(), pipeline.counts if pipeline else SessionStats())
        stats = pipeline.stats() if pipeline else {}
        counters = stats.get("counters", {})
        shown = {"fresh": "filtered" if self._choice else "source", "reused": "held"}
        return reading | {
            "delay_ms": stats.get("delay_ms"),
            "budget_ms": self.config.budget_ms,
            "rung": stats.get("rung"),
            "filter_ready": stats.get("filter_ready"),
            "showing": shown.get(stats.get("shown") or "", stats.get("shown")) if pipeline else "slate",
            "worker_restarts": counters.get("worker_restarts", 0),
            "viewers": self.viewers,
            "bitrate_kbps": round(self.broadcast.bitrate / 1e3, 1),
            "counters": counters,
        }

    def mark(self, peer_id: str) -> dict[str, Any] | None:
        """The newest frame sent to a peer, with when it was captured and when it came in, in epoch milliseconds."""
        peer = self.peers.get(peer_id)
        mark = peer.mark() if peer else None
        if mark is None:
            return None
        captured = self.door.captured_ntp(mark.captured_at)
        age = self._clock.now() - mark.captured_at
        return {
            "rtp": mark.rtp,
            "captured_ms": None if captured is None else 1e3 * captured,
            "received_ms": 1e3 * (time.time() - age),
        }


def _fresh(url: MediaUrl) -> MediaUrl:
    """The output of another stream than the last: a file that is there already stays, and the next that is free, as
    ``name.2.mp4``, is written."""
    path = Path(url.path)
    if url.scheme != "file" or url.flag("overwrite", False):
        return url
    for number in itertools.count(2):
        if not path.exists():
            break
        path = Path(url.path).with_suffix(f".{number}{Path(url.path).suffix}")
    return replace(url, path=str(path))


def _describe_output(id: int, url: MediaUrl, stats: dict[str, Any] | None) -> dict[str, Any]:
    known = stats or {"state": "waiting", "error": ""}
    counts = {name: known.get(name, 0) for name in ("sent", "dropped", "reconnects", "bytes")}
    told = {"state": known["state"], "error": known["error"], "encoder": known.get("encoder", "")}
    return {"id": id, "url": str(url), **told, **counts}
