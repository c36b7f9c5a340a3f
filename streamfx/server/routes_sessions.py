"""The REST interface of sessions: make, look at, change, end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from streamfx.core.errors import FilterError, SinkError, StreamFXError, UsageError
from streamfx.filters.registry import AnyFilter, lacking, listing
from streamfx.pipeline.settings import FilterChoice
from streamfx.server.http import TheManager, TheSession, describe, host_of
from streamfx.server.live_session import ConflictError, FullError, LiveSession
from streamfx.server.models import (
    FilterChoiceInfo,
    FilterDescription,
    FilterRequest,
    Filters,
    LatencyReport,
    Output,
    OutputRequest,
    Outputs,
    ServerClock,
    SessionInfo,
    SessionRequest,
    Sessions,
)
from streamfx.server.problems import ProblemError, responses
from streamfx.server.settings import (
    SessionConfig,
    filter_from_outside,
    load_from_outside,
    output_from_outside,
    source_from_outside,
)

router = APIRouter()

_MARK_EVERY = 0.5
_LONGEST_LATENCY = 60_000.0


@router.get("/filters", tags=["filters"])
async def filters() -> Filters:
    """The installed filters, with the JSON schemas of their parameters."""
    rows = await asyncio.to_thread(listing)
    usable = [row.filter for row in rows if row.filter and row.filter.info.gives == "video"]
    return Filters.model_validate({"filters": [_description(kind) for kind in usable]})


@router.get("/filters/{name}", tags=["filters"], responses=responses(400))
async def get_filter(name: str) -> FilterDescription:
    """One of them, or several with `+` between, which work one after the other."""
    kind = await asyncio.to_thread(load_from_outside, name)
    return FilterDescription.model_validate(_description(kind))


def _description(kind: AnyFilter) -> dict[str, Any]:
    return {
        "name": kind.name,
        "summary": kind.info.summary,
        "takes": kind.info.takes,
        "lacking": lacking(kind),
        "schema": kind.params_type.model_json_schema(),
    }


@router.get("/clock", tags=["server"])
async def clock() -> ServerClock:
    """The server's clock, for pages that measure latency."""
    return ServerClock(now_ms=1e3 * time.time())


@router.get("/sessions", tags=["sessions"])
async def list_sessions(manager: TheManager, request: Request) -> Sessions:
    """All sessions."""
    host = host_of(request)
    found = [describe(session, manager, host) for session in manager.sessions.values()]
    return Sessions.model_validate({"sessions": found})


@router.post("/sessions", status_code=201, tags=["sessions"], responses=responses(400, 409, 413, 422, 503))
async def create_session(
    wanted: SessionRequest, manager: TheManager, request: Request, response: Response
) -> SessionInfo:
    """Makes a session. It ends by itself when nobody has published or watched for ten minutes."""
    filter = None
    if wanted.filter is not None and wanted.filter.name is not None:
        asked = (wanted.filter.name, wanted.filter.params)
        filter = await asyncio.to_thread(filter_from_outside, *asked, manager.config)
    config = SessionConfig(
        source=source_from_outside(wanted.source),
        filter=filter,
        size=wanted.size,
        fps=wanted.fps,
        budget_ms=wanted.budget_ms,
    )
    try:
        session = await manager.create(wanted.id, config)
    except (ConflictError, FullError) as error:
        raise _problem(error) from error
    response.headers["Location"] = f"/sessions/{session.id}"
    return SessionInfo.model_validate(describe(session, manager, host_of(request)))


@router.get("/sessions/{session_id}", tags=["sessions"], responses=responses(404))
async def get_session(session: TheSession, manager: TheManager, request: Request) -> SessionInfo:
    """One session, with the addresses for publishing and watching."""
    return SessionInfo.model_validate(describe(session, manager, host_of(request)))


@router.delete("/sessions/{session_id}", status_code=204, tags=["sessions"], responses=responses(404))
async def end_session(session: TheSession, manager: TheManager) -> None:
    """Ends a session, its publisher, viewers and outputs."""
    await manager.end(session.id)


@router.get("/sessions/{session_id}/params", tags=["filter"], responses=responses(404))
async def get_params(session: TheSession) -> dict[str, Any]:
    """The filter's parameters; empty without a filter."""
    return session.params


@router.patch("/sessions/{session_id}/params", tags=["filter"], responses=responses(400, 404, 413, 422))
async def set_params(session: TheSession, values: Annotated[dict[str, Any], Body(max_length=256)]) -> dict[str, Any]:
    """Changes parameters from the next frame on, all or none. Those not named stay."""
    return session.set_params(values)


@router.put("/sessions/{session_id}/filter", tags=["filter"], responses=responses(400, 404, 409, 413, 422))
async def switch_filter(session: TheSession, wanted: FilterRequest, manager: TheManager) -> FilterChoiceInfo:
    """Puts another filter (null: none) in place of the present one, which works on until the new one is ready."""
    choice: FilterChoice | None = None
    if wanted.name is not None:
        config = await asyncio.to_thread(filter_from_outside, wanted.name, wanted.params, manager.config)
        choice = await asyncio.to_thread(config.choice)
    try:
        await session.switch_filter(choice)
    except (ConflictError, FilterError) as error:
        raise _problem(error) from error
    return FilterChoiceInfo(name=wanted.name, params=session.params)


@router.get("/sessions/{session_id}/outputs", tags=["outputs"], responses=responses(404))
async def list_outputs(session: TheSession) -> Outputs:
    """The places it pushes to."""
    return Outputs.model_validate({"outputs": session.outputs})


@router.post(
    "/sessions/{session_id}/outputs", status_code=201, tags=["outputs"], responses=responses(400, 404, 409, 413, 422)
)
async def add_output(session: TheSession, wanted: OutputRequest, response: Response) -> Output:
    """Starts to push to one more place, from the next key frame on."""
    try:
        id = await session.add_output(output_from_outside(wanted.url))
    except (ConflictError, SinkError) as error:
        raise _problem(error) from error
    response.headers["Location"] = f"/sessions/{session.id}/outputs/{id}"
    return _output(session, id)


@router.get("/sessions/{session_id}/outputs/{output_id}", tags=["outputs"], responses=responses(404, 422))
async def get_output(session: TheSession, output_id: Annotated[int, Path(ge=1, le=2**31)]) -> Output:
    """One output."""
    return _output(session, output_id)


@router.delete(
    "/sessions/{session_id}/outputs/{output_id}", status_code=204, tags=["outputs"], responses=responses(404, 422)
)
async def remove_output(session: TheSession, output_id: Annotated[int, Path(ge=1, le=2**31)]) -> None:
    """Finishes an output."""
    if not await session.remove_output(output_id):
        raise _no_output(output_id)


def _output(session: LiveSession, id: int) -> Output:
    found = next((entry for entry in session.outputs if entry["id"] == id), None)
    if found is None:
        raise _no_output(id)
    return Output.model_validate(found)


def _no_output(id: int) -> ProblemError:
    return ProblemError(404, f"there is no output {id}; GET the outputs for their ids")


@router.get("/sessions/{session_id}/stats", tags=["sessions"], responses=responses(404))
async def get_stats(session: TheSession) -> dict[str, Any]:
    """The live meter's newest reading."""
    peers = [peer.stats() for peer in session.peers.values()]
    return session.meter() | {"encodes": session.broadcast.encodes, "peers": peers}


@router.post("/sessions/{session_id}/latency", status_code=204, tags=["sessions"], responses=responses(400, 404, 422))
async def report_latency(session: TheSession, report: LatencyReport) -> None:
    """Takes latencies from capture to glass that a page measured, for the histogram."""
    for value in report.milliseconds:
        if not 0 <= value <= _LONGEST_LATENCY:
            raise UsageError(f"milliseconds are from 0 to {_LONGEST_LATENCY:.0f}; check the clocks")
    for value in report.milliseconds:
        session.glass.add(value / 1e3)


@router.get(
    "/sessions/{session_id}/events",
    tags=["sessions"],
    response_class=EventSourceResponse,
    responses=responses(404),
)
async def events(
    session: TheSession,
    manager: TheManager,
    request: Request,
    peer: Annotated[str | None, Query(max_length=64)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """What happens, as server-sent events: ``session``, ``state``, ``source``, ``filter``, ``params``, ``output``,
    ``viewers``, ``stats`` twice a second, and with ``peer`` (the last part of a WHIP or WHEP Location) ``mark``."""
    host = host_of(request)
    with session.events.listening() as listener:
        yield ServerSentEvent(event="session", data=describe(session, manager, host))
        async for event in listener:
            data = describe(session, manager, host) if event.name == "session" else event.data
            yield ServerSentEvent(event=event.name, data=data)
            mark = session.mark(peer) if peer and event.name == "stats" else None
            if mark is not None:
                yield ServerSentEvent(event="mark", data=mark)


def _problem(error: StreamFXError) -> ProblemError:
    if isinstance(error, FullError):
        return ProblemError(503, str(error), headers={"Retry-After": "5"})
    return ProblemError(409, str(error))
