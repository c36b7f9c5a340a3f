"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): offers in, answers out, candidates in between."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Request, Response

from streamfx.media.webrtc.offer import OfferError, read_fragment
from streamfx.media.webrtc.peer import Peer
from streamfx.server.http import TheManager, TheSession
from streamfx.server.live_session import ConflictError, FullError, LiveSession
from streamfx.server.manager import Manager
from streamfx.server.problems import ProblemError, responses

router = APIRouter(tags=["media"])

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
RETRY_AFTER = 5

Protocol = Literal["whip", "whep"]
ThePeerId = Annotated[str, Path(max_length=64)]

_OFFER = {"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}}
_CANDIDATES = {"requestBody": {"required": True, "content": {FRAGMENT: {"schema": {"type": "string"}}}}}
_ANSWER: dict[int | str, dict[str, Any]] = {
    201: {"description": "The answer", "content": {SDP: {"schema": {"type": "string"}}}}
}


@router.options("/{protocol}/{session_id}", status_code=204, responses=responses(404))
async def discover(protocol: Protocol, session: TheSession, manager: TheManager) -> Response:
    """What may be posted here, and which STUN and TURN servers to use."""
    headers = {"Accept-Post": SDP, "Access-Control-Allow-Methods": "POST, OPTIONS"}
    return _linked(Response(status_code=204, headers=headers), manager)


@router.post(
    "/{protocol}/{session_id}",
    status_code=201,
    response_class=Response,
    responses=_ANSWER | responses(400, 404, 409, 413, 415, 422, 503),
    openapi_extra=_OFFER,
)
async def open_peer(protocol: Protocol, session: TheSession, manager: TheManager, request: Request) -> Response:
    """Publishes to (WHIP) or watches (WHEP) a session: takes an SDP offer, gives the answer. An offer with ``sendrecv``
    sections to WHIP gets the result back in the same connection."""
    sdp = await _text(request, SDP)
    try:
        peer, answer = await session.open_peer(protocol, sdp)
    except OfferError as error:
        raise ProblemError(error.status, str(error)) from error
    except ConflictError as error:
        raise ProblemError(409, str(error)) from error
    except FullError as error:
        raise ProblemError(503, str(error), headers={"Retry-After": str(RETRY_AFTER)}) from error
    headers = {"Location": f"/{protocol}/{session.id}/{peer.id}", "ETag": peer.etag, "Accept-Patch": FRAGMENT}
    return _linked(Response(answer, 201, headers, SDP), manager)


@router.patch(
    "/{protocol}/{session_id}/{peer_id}",
    status_code=204,
    response_class=Response,
    responses=responses(400, 404, 412, 413, 415, 422, 428),
    openapi_extra=_CANDIDATES,
)
async def trickle(
    protocol: Protocol,
    session: TheSession,
    peer_id: ThePeerId,
    request: Request,
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    """More ICE candidates of the peer (RFC 8840)."""
    peer = _peer(session, protocol, peer_id)
    text = await _text(request, FRAGMENT)
    if if_match is None:
        raise ProblemError(428, "If-Match is missing; send the ETag of the answer in it")
    if if_match == "*":
        raise ProblemError(422, "an ICE restart is not possible here; end this session and begin a new one")
    if if_match != peer.etag:
        raise ProblemError(412, "If-Match is not the ETag of this ICE session; send the one that came with the answer")
    try:
        await peer.trickle(read_fragment(text))
    except OfferError as error:
        raise ProblemError(error.status, str(error)) from error
    return Response(status_code=204)


@router.delete("/{protocol}/{session_id}/{peer_id}", response_class=Response, responses=responses(404))
async def end_peer(protocol: Protocol, session: TheSession, peer_id: ThePeerId) -> Response:
    """Ends a connection."""
    _peer(session, protocol, peer_id).end("its client ended it")
    return Response(status_code=200)


def _peer(session: LiveSession, protocol: str, peer_id: str) -> Peer:
    peer = session.peers.get(peer_id)
    if peer is None or peer.kind != protocol:
        raise ProblemError(404, "there is no such connection (any more); begin a new one")
    return peer


async def _text(request: Request, media_type: str) -> str:
    stated = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if stated != media_type:
        raise ProblemError(415, f"send this as Content-Type: {media_type}", headers={"Accept-Post": media_type})
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise ProblemError(400, "the body is no UTF-8 text") from None


def _linked(response: Response, manager: Manager) -> Response:
    """Adds the ICE servers as RFC 9725, 4.6 has them."""
    for server in manager.config.webrtc.ice_servers:
        extra = ""
        if server.username is not None and server.credential is not None:
            credential = server.credential.get_secret_value()
            extra = f'; username="{server.username}"; credential="{credential}"; credential-type="password"'
        for url in server.urls:
            response.headers.append("Link", f'<{url}>; rel="ice-server"{extra}')
    return response
