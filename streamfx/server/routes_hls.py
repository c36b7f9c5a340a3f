"""HLS for players that speak nothing quicker: a session's result as a playlist and its segments."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from streamfx.media.hls import NotYetError
from streamfx.server.http import TheSession
from streamfx.server.problems import ProblemError, responses

router = APIRouter(tags=["media"])

RETRY_AFTER = 2

_PLAYLIST, _SEGMENT = "application/vnd.apple.mpegurl", "video/mp2t"
_FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The playlist, or a segment",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (_PLAYLIST, _SEGMENT)},
    }
}


@router.get("/sessions/{session_id}/hls/{name}", response_class=Response, responses=_FILES | responses(404, 503))
async def hls(session: TheSession, name: Annotated[str, Path(max_length=64)]) -> Response:
    """The result as HLS, `index.m3u8` and what it names. It is made while somebody asks for it: the first answer takes
    some seconds, and may be a 503 with `Retry-After`."""
    try:
        data = await session.hls.read(name)
    except NotYetError as error:
        raise ProblemError(503, str(error), headers={"Retry-After": str(RETRY_AFTER)}) from error
    if data is None:
        raise ProblemError(404, "there is no such segment (any more); ask for index.m3u8, which names those there are")
    return Response(data, media_type=_PLAYLIST if name.endswith(".m3u8") else _SEGMENT)
