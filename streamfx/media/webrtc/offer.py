"""Reads what peers send as text, offers and trickled candidates, and refuses what cannot be answered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from aiortc import RTCIceCandidate
from aiortc.sdp import SessionDescription, candidate_from_sdp

from streamfx.core.errors import StreamFXError

MAX_CANDIDATES = 64
"""Candidates that a peer may name, in its offer and after it."""

_MAX_SECTIONS = 8
_PUBLIC_CODECS = {"video": ("h264", "vp8"), "audio": ("opus",)}


class OfferError(StreamFXError):
    """An offer or candidate that cannot be taken. ``status``: 400 if it is broken, 422 if it is in order but asks for
    what is not to be had."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be answered. ``directions``: by kind, as the offerer says them ("sendonly", "sendrecv", …).
    ``ufrag``: the offerer's ICE user name."""

    sdp: str = field(repr=False)
    directions: dict[str, str]
    ufrag: str

    def sends(self, kind: str) -> bool:
        return self.directions.get(kind) in ("sendonly", "sendrecv")

    def receives(self, kind: str) -> bool:
        return self.directions.get(kind) in ("recvonly", "sendrecv")


def read_offer(text: str) -> Offer:
    """Checks an SDP offer (RFC 8829) of at most one video and one audio section. Raises ``OfferError``."""
    parsed = _parse(text)
    if not parsed.media:
        raise OfferError("the offer has no media section; offer video, and audio if there is any")
    directions: dict[str, str] = {}
    ufrag = ""
    for media in parsed.media:
        if media.kind not in ("video", "audio"):
            raise OfferError(f"the offer has a section of kind {media.kind!r}; offer video and audio only", 422)
        if media.kind in directions:
            raise OfferError(f"the offer has two {media.kind} sections; offer one video and one audio", 422)
        if len(media.ice_candidates) > MAX_CANDIDATES:
            raise OfferError(f"the offer names more than {MAX_CANDIDATES} candidates; name fewer")
        if media.dtls is None or not media.dtls.fingerprints:
            raise OfferError("the offer has no DTLS fingerprint; it must have a=fingerprint and a=setup")
        if media.ice is None or not media.ice.usernameFragment or not media.ice.password:
            raise OfferError("the offer has no ICE credentials; it must have a=ice-ufrag and a=ice-pwd")
        if not media.rtp.muxId:
            raise OfferError("the offer has a section without a=mid; every section needs one")
        names = {codec.name.lower() for codec in media.rtp.codecs}
        if not names.intersection(_PUBLIC_CODECS[media.kind]):
            wanted = "H.264 (baseline, packetization-mode 1) or VP8" if media.kind == "video" else "Opus"
            raise OfferError(f"the offer has no {media.kind} codec in common with us; offer {wanted}", 422)
        directions[media.kind] = media.direction or "sendrecv"
        ufrag = ufrag or media.ice.usernameFragment
    return Offer(text, directions, ufrag)


def _parse(text: str) -> SessionDescription:
    if not text.lstrip().startswith("v=0"):
        raise OfferError("this is no SDP: it must begin with v=0")
    if text.count("\nm=") > _MAX_SECTIONS:
        raise OfferError(f"the offer has more than {_MAX_SECTIONS} sections; offer one video and one audio")
    try:
        return SessionDescription.parse(text)
    except Exception as error:
        # The parser takes for granted what it reads: broken input surfaces as nearly any exception.
        raise OfferError("the SDP offer cannot be read; check that it is whole and comes from createOffer()") from error


@dataclass(frozen=True, slots=True)
class Fragment:
    """Trickled candidates (RFC 8840). ``ufrag``: the ICE user name they belong to, empty if not told."""

    candidates: tuple[RTCIceCandidate, ...]
    complete: bool
    ufrag: str


def read_fragment(text: str) -> Fragment:
    """Reads an ``application/trickle-ice-sdpfrag`` body. Raises ``OfferError``."""
    candidates: list[RTCIceCandidate] = []
    mid, index, ufrag, complete = None, -1, "", False
    for line in re.split(r"\r\n|\n|\r", text):
        name, _, value = line.partition(":")
        if line.startswith("m="):
            index, mid = index + 1, None
        elif name == "a=mid":
            mid = value
        elif name == "a=ice-ufrag":
            ufrag = value
        elif line == "a=end-of-candidates":
            complete = True
        elif name == "a=candidate":
            if len(candidates) >= MAX_CANDIDATES:
                raise OfferError(f"more than {MAX_CANDIDATES} candidates at once; send fewer")
            candidates.append(_candidate(value, mid, max(0, index)))
        elif line and not re.fullmatch(r"[a-z]=.*", line):
            raise OfferError("this is no SDP fragment; send a=ice-ufrag, m=, a=mid and a=candidate lines")
    return Fragment(tuple(candidates), complete, ufrag)


def _candidate(value: str, mid: str | None, index: int) -> RTCIceCandidate:
    try:
        candidate = candidate_from_sdp(value)
    except Exception as error:
        raise OfferError("a candidate cannot be read; send it as the browser gave it") from error
    candidate.sdpMid = mid
    candidate.sdpMLineIndex = index
    return candidate
