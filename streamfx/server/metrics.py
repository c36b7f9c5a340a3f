"""The sessions' counters for Prometheus, in OpenMetrics names: units in base units, labels bounded.

Labels are session ids (at most ``limits.sessions`` at a time), names of our own counters and of the filter's rungs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from streamfx import __version__
from streamfx.core.stats import Histogram
from streamfx.server.http import TheManager
from streamfx.server.live_session import LiveSession
from streamfx.server.manager import Manager

router = APIRouter(tags=["server"])

BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds of the latency buckets, in seconds."""

_FATES = {
    "frames_in": "Pictures that came in.",
    "frames_out": "Pictures that went out.",
    "processed": "Pictures that the filter rendered.",
    "late": "Renderings that missed their deadline.",
    "dropped": "Pictures that were replaced by newer ones before the filter got to them.",
    "left_out": "Pictures that the governor left out.",
    "reused": "Slots in which the last rendering was held.",
    "source_shown": "Slots in which the source was shown for want of a rendering.",
    "slate_shown": "Slots in which the slate was shown.",
}
_EVENTS = {"worker_restarts": "Restarts of the filter's process.", "filter_errors": "Blocks that the filter failed on."}


@router.get("/metrics", response_class=Response)
async def metrics(manager: TheManager, request: Request) -> Response:
    """Everything that is counted, in the text format that the caller accepts."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SessionCollector(manager))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type)


class SessionCollector(Collector):
    """Reads the sessions when asked."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        sessions = list(self._manager.sessions.values())
        build = GaugeMetricFamily("streamfx_build_info", "Version of the server.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily("streamfx_sessions", "Sessions there are.", value=len(sessions))
        yield _gauge("streamfx_viewers", "Viewers over WebRTC.", {s.id: s.viewers for s in sessions})
        running = {s.id: float(s.state == "running") for s in sessions}
        yield _gauge("streamfx_session_running", "1 while a stream runs.", running)
        publishing = {s.id: float(s.door.visitor is not None) for s in sessions}
        yield _gauge("streamfx_publisher_connected", "1 while somebody publishes.", publishing)
        bitrates = {s.id: s.broadcast.bitrate for s in sessions}
        yield _gauge("streamfx_viewer_encode_bits_per_second", "Video encoded for viewers, all encodes.", bitrates)
        yield from self._of_pipelines(sessions)
        glass = [(s, s.glass) for s in sessions]
        yield _histogram("streamfx_glass_to_glass_latency_seconds", "Capture to display, as pages measured it.", glass)

    def _of_pipelines(self, sessions: list[LiveSession]) -> Iterator[Metric]:
        counts = [(session, session.counts) for session in sessions]
        known = [(session, stats) for session, stats in counts if stats is not None]
        frames = CounterMetricFamily("streamfx_frames", "Pictures by what became of them.", labels=["session", "fate"])
        events = CounterMetricFamily("streamfx_filter_events", "What befell the filter.", labels=["session", "event"])
        rungs = CounterMetricFamily("streamfx_blocks", "Blocks by rung of the governor.", labels=["session", "rung"])
        moves = CounterMetricFamily("streamfx_ladder_moves", "Moves of the governor.", labels=["session", "from", "to"])
        for session, stats in known:
            for fate in _FATES:
                frames.add_metric([session.id, fate], stats.counters.get(fate, 0))
            for event in _EVENTS:
                events.add_metric([session.id, event], stats.counters.get(event, 0))
            for rung, count in stats.rungs.items():
                rungs.add_metric([session.id, rung], count)
            for (before, after), count in stats.moves.items():
                moves.add_metric([session.id, before, after], count)
        yield from (frames, events, rungs, moves)
        latency = [(session, stats.latency) for session, stats in known]
        yield _histogram("streamfx_latency_seconds", "Arrival of a picture to its output slot.", latency)
        outputs = CounterMetricFamily(
            "streamfx_output_frames",
            "Pictures by output and what became of them.",
            labels=["session", "output", "fate"],
        )
        written = CounterMetricFamily(
            "streamfx_output_bytes", "Bytes sent to an output.", labels=["session", "output"], unit="bytes"
        )
        for session in sessions:
            for entry in session.outputs:
                outputs.add_metric([session.id, str(entry["id"]), "sent"], entry["sent"])
                outputs.add_metric([session.id, str(entry["id"]), "dropped"], entry["dropped"])
                written.add_metric([session.id, str(entry["id"])], entry["bytes"])
        yield from (outputs, written)


def _gauge(name: str, text: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["session"])
    for id, value in values.items():
        family.add_metric([id], value)
    return family


def _histogram(name: str, text: str, rows: list[tuple[LiveSession, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["session"], unit="seconds")
    for session, histogram in rows:
        counts = histogram.at_most(BOUNDS)
        buckets = [(str(bound), float(count)) for bound, count in zip(BOUNDS, counts, strict=True)]
        family.add_metric([session.id], [*buckets, ("+Inf", float(histogram.count))], histogram.total)
    return family


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answers as long as the process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(manager: TheManager, response: Response) -> dict[str, str | float]:
    """Whether requests are taken: 503 while the server starts or shuts down."""
    if not manager.accepting:
        response.status_code = 503
        return {"status": "not ready"}
    return {"status": "ready", "time": time.time()}
