"""One WebRTC connection: a publisher, a viewer, or both at once. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

from streamfx.core.clock import Clock
from streamfx.media.door import Door, Visit
from streamfx.media.webrtc import compat
from streamfx.media.webrtc.broadcast import Broadcast, Outlet, Viewer
from streamfx.media.webrtc.encode import Codec, Encoded
from streamfx.media.webrtc.inbound import Inbound
from streamfx.media.webrtc.offer import MAX_CANDIDATES, Fragment, Offer, OfferError
from streamfx.media.webrtc.timing import SenderTimes

logger = logging.getLogger(__name__)

_ANSWER_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0
_WATCH_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """``ice_servers``: STUN and TURN for our own side. ``public_addresses``: addresses under which this machine's are
    reached from outside (1:1 NAT), offered as candidates as well. ``codecs``: for viewers, best first.
    ``connect_timeout``, ``silence_timeout``: seconds until a peer that never connects, or from which nothing comes any
    more, is ended. ``start_kbps``: what a publishing browser may send from the start."""

    ice_servers: tuple[RTCIceServer, ...] = ()
    public_addresses: tuple[str, ...] = ()
    codecs: tuple[Codec, ...] = ("H264", "VP8")
    connect_timeout: float = 15.0
    silence_timeout: float = 8.0
    start_kbps: int = 2000


class _OutletTrack(MediaStreamTrack):
    """What an aiortc sender reads: frames of an outlet, encoded already."""

    def __init__(self, kind: str, outlet: Outlet) -> None:
        super().__init__()
        self.kind = kind
        self._outlet = outlet
        self.sender: RTCRtpSender | None = None
        self.last: Encoded | None = None
        self.origin: int | None = None
        """What the sender adds to our ticks, modulo 2³²."""

    async def recv(self) -> Any:
        if self.last is not None and self.origin is None and self.sender is not None:
            # All packets of the last frame are out by now.
            self.origin = (compat.last_timestamp(self.sender) - self.last.ticks) & 0xFFFFFFFF
        frame = await self._outlet.get()
        if frame is None:
            self.stop()
            raise MediaStreamError
        self.last = frame
        return frame


@dataclass(frozen=True, slots=True)
class Mark:
    """A video frame that was sent: RTP timestamp on the wire, and clock seconds at which its source frame came in."""

    rtp: int
    captured_at: float


@dataclass(slots=True)
class _Media:
    visit: Visit | None = None
    inbound: list[Inbound] = field(default_factory=list)
    viewer: Viewer | None = None
    video_track: _OutletTrack | None = None


class Peer:
    """Answer an offer with ``accept``, then keep it going with ``run`` until it returns; ``end`` makes it.

    ``door``: where a publisher's frames go. ``broadcast``: what a viewer gets. ``kind``: "whip" or "whep".
    """

    def __init__(
        self, kind: str, settings: PeerSettings, clock: Clock, door: Door | None, broadcast: Broadcast | None
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.etag = f'"{secrets.token_hex(8)}"'
        self.kind = kind
        self.reason = ""
        """Why it ended."""
        self._settings = settings
        self._clock = clock
        self._door = door
        self._broadcast = broadcast
        self._media = _Media()
        self._offer: Offer | None = None
        self._candidates = 0
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._closed = False
        configuration = RTCConfiguration(list(settings.ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self._connection = RTCPeerConnection(configuration)
        self._connection.on("connectionstatechange", self._state_changed)

    @property
    def publishes(self) -> bool:
        return self._media.visit is not None

    @property
    def watches(self) -> bool:
        return self._media.viewer is not None

    async def accept(self, offer: Offer) -> str:
        """Answers. Returns the SDP; after an exception the peer is closed. Raises ``OfferError``."""
        self._offer = offer
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                return await self._answer(offer)
        except OfferError:
            await self.close()
            raise
        except TimeoutError:
            await self.close()
            raise OfferError("the connection could not be prepared in time; try again", 422) from None
        except Exception as error:
            await self.close()
            logger.debug("offer refused", exc_info=True)
            raise OfferError("the offer cannot be answered; check its ICE, DTLS and codec lines") from error
        except BaseException:
            await self.close()
            raise

    async def _answer(self, offer: Offer) -> str:
        for kind in offer.directions:
            receive = self._door is not None and offer.sends(kind)
            send = self._broadcast is not None and offer.receives(kind)
            direction = {(1, 1): "sendrecv", (1, 0): "sendonly", (0, 1): "recvonly", (0, 0): "inactive"}[send, receive]
            transceiver = self._connection.addTransceiver(kind, direction)
            transceiver.setCodecPreferences(_preferences(kind, self._settings.codecs))
        await self._connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        self._attach(offer)
        answer = await self._connection.createAnswer()
        await self._connection.setLocalDescription(answer)
        return self._dressed(self._connection.localDescription.sdp)

    def _attach(self, offer: Offer) -> None:
        """Connects the tracks with the door and the broadcast."""
        if self._door is not None and (offer.sends("video") or offer.sends("audio")):
            self._media.visit = self._door.enter(
                self.kind, retire=lambda: self.end("another publisher took over"), video=offer.sends("video")
            )
            times = SenderTimes()
            for transceiver in self._connection.getTransceivers():
                if offer.sends(transceiver.kind):
                    lane = "video" if transceiver.kind == "video" else "audio"
                    inbound = Inbound(transceiver.receiver, lane, times, self._media.visit, self._clock)  # type: ignore[arg-type]
                    self._media.inbound.append(inbound)
        if self._broadcast is not None and offer.receives("video"):
            by_kind = {transceiver.kind: transceiver for transceiver in self._connection.getTransceivers()}
            codec: Codec = "VP8" if compat.negotiated_codec(by_kind["video"]).upper() == "VP8" else "H264"
            viewer = self._media.viewer = self._broadcast.join(codec)
            self._media.video_track = _OutletTrack("video", viewer.video)
            self._send(by_kind["video"].sender, self._media.video_track, viewer)
            if offer.receives("audio"):
                self._send(by_kind["audio"].sender, _OutletTrack("audio", viewer.audio), None)

    def _send(self, sender: RTCRtpSender, track: _OutletTrack, feedback: Viewer | None) -> None:
        def nothing(_: object = None) -> None: ...

        adaptation = feedback.adaptation if feedback else None
        compat.take_over_sender(
            sender,
            on_key_frame=feedback.want_key if feedback else nothing,
            on_bitrate=adaptation.estimate if adaptation else nothing,
            on_loss=adaptation.lost if adaptation else nothing,
        )
        track.sender = sender
        sender.replaceTrack(track)

    def _dressed(self, sdp: str) -> str:
        """The answer with candidates for our public addresses, and a start bitrate for browsers that publish."""
        sdp = _with_addresses(sdp, self._settings.public_addresses)
        return _with_start_bitrate(sdp, self._settings.start_kbps) if self.publishes else sdp

    async def trickle(self, fragment: Fragment) -> None:
        """Takes more of the peer's candidates. Raises ``OfferError``, 422 for an ICE restart."""
        assert self._offer is not None
        if fragment.ufrag and fragment.ufrag != self._offer.ufrag:
            raise OfferError("an ICE restart is not possible here; end this session and begin a new one", 422)
        self._candidates += len(fragment.candidates)
        if self._candidates > MAX_CANDIDATES:
            raise OfferError(f"the peer named more than {MAX_CANDIDATES} candidates; begin a new session")
        for candidate in fragment.candidates:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._connection.addIceCandidate(candidate)
            except Exception as error:
                raise OfferError("a candidate cannot be used; send it as the browser gave it") from error

    async def run(self) -> None:
        """Keeps the connection going until it fails, falls silent or ``end`` is called, and frees everything."""
        try:
            if not await self._connects():
                return
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(inbound.run()) for inbound in self._media.inbound]
                tasks += [
                    group.create_task(inbound.watch()) for inbound in self._media.inbound if inbound.lane == "video"
                ]
                tasks.append(group.create_task(self._watch()))
                try:
                    await self._ended.wait()
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            await asyncio.shield(self.close())
            logger.info("peer kind=%s ended reason=%r", self.kind, self.reason)

    async def _connects(self) -> bool:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(event.wait()) for event in (self._connected, self._ended)]
            await asyncio.wait(waits, timeout=self._settings.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if not self._connected.is_set():
            self.end("it never connected")
        return not self._ended.is_set()

    async def _watch(self) -> None:
        """Ends a peer from which nothing comes any more, long before ICE would notice."""
        heard_at, received = self._clock.now(), -1
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            now = self._clock.now()
            count = await self._packets_received()
            if count != received:
                heard_at, received = now, count
            elif now - heard_at > self._settings.silence_timeout:
                self.end(f"nothing came for {self._settings.silence_timeout:.0f} s")

    async def _packets_received(self) -> int:
        report = await self._connection.getStats()
        return sum(entry.packetsReceived for entry in report.values() if entry.type == "transport")

    def mark(self) -> Mark | None:
        """The newest frame that was sent, for whoever measures the way to the glass."""
        track = self._media.video_track
        if track is None or track.last is None or track.origin is None or track.last.captured_at is None:
            return None
        return Mark((track.last.ticks + track.origin) & 0xFFFFFFFF, track.last.captured_at)

    def stats(self) -> dict[str, Any]:
        """JSON values: what came in, lane by lane, and what went out."""
        viewer = self._media.viewer
        return {
            "kind": self.kind,
            "in": {inbound.lane: inbound.stats() for inbound in self._media.inbound},
            "out": None
            if viewer is None
            else {
                "codec": viewer.codec,
                "layer": viewer.layer,
                "sent": viewer.video.sent,
                "dropped": viewer.video.dropped,
                "bytes": viewer.video.bytes + viewer.audio.bytes,
            },
        }

    def end(self, reason: str) -> None:
        """Makes ``run`` return soon."""
        self.reason = self.reason or reason
        self._ended.set()

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self.end(f"the connection {'failed' if state == 'failed' else 'was closed'}")

    async def close(self) -> None:
        """Frees everything; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        if self._media.visit is not None:
            self._media.visit.leave()
        if self._media.viewer is not None and self._broadcast is not None:
            self._broadcast.leave(self._media.viewer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await compat.close(self._connection)


def _preferences(kind: str, codecs: Sequence[Codec]) -> list[RTCRtpCodecCapability]:
    """What we take of aiortc's codecs, in our order; retransmission (RFC 4588) comes last."""
    wanted = [f"video/{codec.lower()}" for codec in codecs] + ["video/rtx"] if kind == "video" else ["audio/opus"]
    there = RTCRtpSender.getCapabilities(kind).codecs
    return [codec for name in wanted for codec in there if codec.mimeType.lower() == name]


def _with_addresses(sdp: str, addresses: Sequence[str]) -> str:
    """Adds a candidate for each public address beside every host candidate of its family."""
    lines: list[str] = []
    for line in sdp.splitlines():
        lines.append(line)
        match = re.fullmatch(r"a=candidate:(\S+) (\d+) (\S+) (\d+) (\S+) (\d+) typ host", line)
        for address in addresses if match else ():
            assert match is not None
            if ipaddress.ip_address(address).version == ipaddress.ip_address(match[5]).version:
                place = f"{match[2]} {match[3]} {max(1, int(match[4]) - 1)} {address} {match[6]}"
                lines.append(f"a=candidate:p{match[1]} {place} typ host")
    return "\r\n".join(lines) + "\r\n"


def _with_start_bitrate(sdp: str, kbps: int) -> str:
    """Chromium starts at 300 kbps and looks blurred for seconds unless the answer says better."""
    video = re.search(r"^m=video.*?(?=^m=|\Z)", sdp, re.MULTILINE | re.DOTALL)
    if video is None:
        return sdp
    section = video[0]
    extra = f"x-google-start-bitrate={kbps};x-google-min-bitrate={max(100, kbps // 6)}"
    for number in re.findall(r"^a=rtpmap:(\d+) (?:VP8|H264)/90000\r$", section, re.MULTILINE):
        fmtp = rf"^(a=fmtp:{number} [^\r\n]*)"
        if re.search(fmtp, section, re.MULTILINE):
            section = re.sub(fmtp, rf"\1;{extra}", section, count=1, flags=re.MULTILINE)
        else:
            rtpmap = rf"^(a=rtpmap:{number} [^\r\n]*\r\n)"
            section = re.sub(rtpmap, rf"\1a=fmtp:{number} {extra}\r\n", section, count=1, flags=re.MULTILINE)
    return sdp[: video.start()] + section + sdp[video.end() :]
