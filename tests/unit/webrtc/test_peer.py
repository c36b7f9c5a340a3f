"""Peers against plain aiortc clients, over loopback UDP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.frames import AudioFrame, VideoFrame
from streamfx.core.slate import Slate
from streamfx.media.base import SourceRequest
from streamfx.media.door import Door
from streamfx.media.webrtc.broadcast import Broadcast, BroadcastSettings
from streamfx.media.webrtc.offer import Offer, OfferError, read_fragment, read_offer
from streamfx.media.webrtc.peer import Peer, PeerSettings
from tests.unit.webrtc.clients import CameraTrack, ToneTrack, answered, client, grey, until

SETTINGS = PeerSettings(connect_timeout=5, silence_timeout=2)


@contextlib.asynccontextmanager
async def broadcasting(**settings: Any) -> AsyncIterator[Broadcast]:
    broadcast = Broadcast(BroadcastSettings(**settings), MonotonicClock(), Slate)
    async with broadcast.running():
        yield broadcast


@contextlib.asynccontextmanager
async def serving(peer: Peer, sdp: str) -> AsyncIterator[str]:
    """Accepts and runs a peer; gives the answer."""
    answer = await peer.accept(read_offer(sdp))
    async with asyncio.TaskGroup() as group:
        group.create_task(peer.run())
        try:
            yield answer
        finally:
            peer.end("the test is over")


async def feed(broadcast: Broadcast, level: list[int], fps: int = 30) -> None:
    """Pictures of the grey level that ``level[0]`` says, and a tone, until cancelled."""
    sink = broadcast.sink()
    loop, start, n = asyncio.get_running_loop(), asyncio.get_running_loop().time(), 0
    while True:
        await asyncio.sleep(max(0.0, start + n / fps - loop.time()))
        picture = grey(level[0])
        picture[:, (3 * n) % 320] = 255  # something that moves
        sink.write_video(picture, n / fps, MonotonicClock().now())
        phase = 2 * np.pi * 440 * np.arange(n * 1600, (n + 1) * 1600) / 48_000
        sink.write_audio(np.tile(0.3 * np.sin(phase), (2, 1)).astype(np.float32), n * 1600)
        n += 1


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_publisher_is_received(codec: str) -> None:
    door = Door()
    async with client(CameraTrack(lambda n: grey(60 + n % 100)), ToneTrack(), codec=codec) as (connection, _, sdp):
        peer = Peer("whip", SETTINGS, MonotonicClock(), door, None)
        async with contextlib.AsyncExitStack() as stack:
            await answered(connection, await stack.enter_async_context(serving(peer, sdp)))
            source = await stack.enter_async_context(door.open(SourceRequest(MonotonicClock()), grace=5))
            assert source.info.size == (320, 240)
            assert source.info.fps == Fraction(30)
            pictures, sounds = [], []
            async with asyncio.timeout(10):
                async for frame in source.frames():
                    (pictures if isinstance(frame, VideoFrame) else sounds).append(frame)
                    if len(pictures) >= 45 and len(sounds) >= 45:
                        break
            assert [p.sequence for p in pictures] == sorted(p.sequence for p in pictures)
            steps = np.diff([p.pts for p in pictures])
            assert np.median(steps) == pytest.approx(1 / 30, abs=1e-3)
            assert all(isinstance(s, AudioFrame) for s in sounds)
            tone = np.concatenate([s.samples[0] for s in sounds[10:40]])
            peak = np.argmax(np.abs(np.fft.rfft(tone))) * 48_000 / len(tone)
            assert peak == pytest.approx(440, abs=20)
            # Sender reports tell when frames were captured, by the publisher's clock, which is ours here.
            await until(lambda: len(door._captured) > 0)
            arrived, captured = next(iter(door._captured.items()))
            assert door.captured_ntp(arrived) == captured
            assert abs((time.time() - captured) - (MonotonicClock().now() - arrived)) < 0.5
        assert door.visitor is None


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_viewer_sees_and_hears(codec: str) -> None:
    level = [60]
    async with broadcasting() as broadcast, asyncio.TaskGroup() as group:
        feeding = group.create_task(feed(broadcast, level))
        async with client(watch=True, codec=codec) as (connection, watcher, sdp):
            peer = Peer("whep", SETTINGS, MonotonicClock(), None, broadcast)
            async with serving(peer, sdp) as answer:
                await answered(connection, answer)
                await until(lambda: abs(watcher.level() - 60) < 6)
                level[0] = 180
                await until(lambda: abs(watcher.level() - 180) < 6, 2)
                await until(lambda: len(watcher.sound) > 60)
                tone = np.concatenate([part.reshape(-1, 2)[:, 0] for part in watcher.sound[20:60]]).astype(float)
                peak = np.argmax(np.abs(np.fft.rfft(tone))) * 48_000 / len(tone)
                assert peak == pytest.approx(440, abs=20)
                assert broadcast.encodes == [f"{codec} high"]
                await until(lambda: peer.mark() is not None)
        assert broadcast.viewers == 0
        feeding.cancel()


async def test_viewers_of_one_codec_share_one_encode() -> None:
    async with broadcasting(key_every=0.2) as broadcast, asyncio.TaskGroup() as group:
        feeding = group.create_task(feed(broadcast, [90]))
        async with contextlib.AsyncExitStack() as stack:
            watchers = []
            for codec in ("H264", "H264", "VP8", "H264"):
                connection, watcher, sdp = await stack.enter_async_context(client(watch=True, codec=codec))
                peer = Peer("whep", SETTINGS, MonotonicClock(), None, broadcast)
                await answered(connection, await stack.enter_async_context(serving(peer, sdp)))
                watchers.append(watcher)
            for watcher in watchers:
                await until(lambda watcher=watcher: abs(watcher.level() - 90) < 6)
            assert sorted(broadcast.encodes) == ["H264 high", "VP8 high"]
            assert broadcast.viewers == 4
        feeding.cancel()


async def test_a_slate_is_shown_while_nobody_publishes() -> None:
    async with broadcasting() as broadcast, client(watch=True) as (connection, watcher, sdp):
        peer = Peer("whep", SETTINGS, MonotonicClock(), None, broadcast)
        async with serving(peer, sdp) as answer:
            await answered(connection, answer)
            await until(lambda: len(watcher.times) > 5)
            assert watcher.newest is not None
            assert watcher.newest.max() > 40  # the dots that breathe


async def test_both_ways_in_one_connection() -> None:
    door = Door()
    async with broadcasting() as broadcast:
        camera = CameraTrack(lambda n: grey(200))
        async with client(camera, ToneTrack(), watch=True) as (connection, watcher, sdp):
            peer = Peer("whip", SETTINGS, MonotonicClock(), door, broadcast)
            async with serving(peer, sdp) as answer:
                await answered(connection, answer)
                async with door.open(SourceRequest(MonotonicClock()), grace=5) as source:
                    sink, first = broadcast.sink(), None

                    async def pump() -> None:
                        nonlocal first
                        async for frame in source.frames():
                            if isinstance(frame, VideoFrame):
                                first = frame.pts if first is None else first
                                sink.write_video(255 - frame.pixels, frame.pts - first, frame.captured_at)

                    async with asyncio.TaskGroup() as group:
                        pumping = group.create_task(pump())
                        await until(lambda: abs(watcher.level() - 55) < 6)
                        pumping.cancel()


async def test_the_last_publisher_wins() -> None:
    door = Door()
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for _ in range(2):
            connection, _, sdp = await stack.enter_async_context(client(CameraTrack(lambda n: grey(9))))
            peer = Peer("whip", SETTINGS, MonotonicClock(), door, None)
            await answered(connection, await stack.enter_async_context(serving(peer, sdp)))
            peers.append(peer)
        await until(lambda: peers[0].reason == "another publisher took over")
        assert door.visitor is not None
        assert door.visitor.current


async def test_a_peer_that_falls_silent_is_ended() -> None:
    door = Door()
    async with client(CameraTrack(lambda n: grey(9))) as (connection, _, sdp):
        peer = Peer("whip", SETTINGS, MonotonicClock(), door, None)
        async with serving(peer, sdp) as answer:
            await answered(connection, answer)
            await until(lambda: peer.stats()["in"]["video"]["frames"] > 3)
            for transceiver in connection.getTransceivers():
                await transceiver.sender.stop()  # no BYE of the transport: as if the cable was pulled
            await until(lambda: peer.reason.startswith("nothing came"), 8)
            await until(lambda: door.visitor is None)


async def test_a_peer_that_never_connects_is_ended() -> None:
    door = Door()
    async with client(CameraTrack(lambda n: grey(9))) as (_, _, sdp):
        peer = Peer("whip", PeerSettings(connect_timeout=0.3), MonotonicClock(), door, None)
        await peer.accept(read_offer(sdp))
        async with asyncio.timeout(6):
            await peer.run()
    assert peer.reason == "it never connected"
    assert door.visitor is None


async def offer_text() -> str:
    async with client(CameraTrack(lambda n: grey(9)), ToneTrack()) as (_, _, sdp):
        return sdp


async def test_offers_that_are_refused() -> None:
    sdp = await offer_text()
    whole = read_offer(sdp)
    assert whole.sends("video")
    assert not whole.receives("video")
    refused = {
        "hello": 400,
        sdp[: sdp.index("m=")]: 400,
        sdp.replace("H264", "XYZ1").replace("VP8", "XYZ2"): 422,
        sdp.replace("opus", "g999"): 422,
        "\r\n".join(line for line in sdp.splitlines() if not line.startswith("a=fingerprint")): 400,
        "\r\n".join(line for line in sdp.splitlines() if not line.startswith("a=ice-ufrag")): 400,
        sdp.replace("m=audio", "m=video"): 422,
    }
    for text, status in refused.items():
        with pytest.raises(OfferError) as error:
            read_offer(text)
        assert error.value.status == status


async def test_an_offer_that_cannot_be_answered_leaves_nothing() -> None:
    offer = read_offer(await offer_text())
    door = Door()
    broken = offer.sdp.replace("a=rtcp-mux\r\n", "")
    peer = Peer("whip", SETTINGS, MonotonicClock(), door, None)
    with pytest.raises(OfferError) as error:
        await peer.accept(Offer(broken, offer.directions, offer.ufrag))
    assert error.value.status == 400
    assert door.visitor is None


async def test_trickled_candidates() -> None:
    sdp = await offer_text()
    line = next(line for line in sdp.splitlines() if line.startswith("a=candidate"))
    ufrag = read_offer(sdp).ufrag
    peer = Peer("whip", SETTINGS, MonotonicClock(), Door(), None)
    await peer.accept(read_offer(sdp))
    try:
        body = f"a=ice-ufrag:{ufrag}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n{line}\r\n"
        await peer.trickle(read_fragment(body))
        with pytest.raises(OfferError) as error:
            await peer.trickle(read_fragment("a=ice-ufrag:other\r\n"))
        assert error.value.status == 422
        with pytest.raises(OfferError, match="candidate"):
            read_fragment("a=candidate:nonsense\r\n")
        for _ in range(63):
            await peer.trickle(read_fragment(body))
        with pytest.raises(OfferError, match="more than"):
            await peer.trickle(read_fragment(body))
    finally:
        await peer.close()


async def test_public_addresses_are_offered() -> None:
    peer = Peer("whip", PeerSettings(public_addresses=("203.0.113.7",)), MonotonicClock(), Door(), None)
    answer = await peer.accept(read_offer(await offer_text()))
    await peer.close()
    assert "203.0.113.7" in answer
    assert "x-google-start-bitrate=2000" in answer
