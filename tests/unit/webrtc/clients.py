"""WebRTC clients for tests: plain aiortc, as any other program would use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from streamfx.media.webrtc import compat

Picture = NDArray[np.uint8]


def grey(level: int, size: tuple[int, int] = (320, 240)) -> Picture:
    return np.full((size[1], size[0], 3), level, np.uint8)


class CameraTrack(MediaStreamTrack):
    """Pictures in real time: ``picture(n)`` is the n-th."""

    kind = "video"

    def __init__(self, picture: Callable[[int], Picture], fps: int = 30) -> None:
        super().__init__()
        self._picture = picture
        self._fps = fps
        self._count = 0
        self._start = asyncio.get_running_loop().time()

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        due = self._start + self._count / self._fps
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        frame = av.VideoFrame.from_ndarray(self._picture(self._count), "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(self._count * 90_000 / self._fps), Fraction(1, 90_000)
        self._count += 1
        return frame


class ToneTrack(MediaStreamTrack):
    """A 440 Hz tone at 48 kHz in frames of 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._start = asyncio.get_running_loop().time()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._start + self._count / 48_000 - asyncio.get_running_loop().time()))
        phase = 2 * np.pi * 440 * (self._count + np.arange(960)) / 48_000
        wave = (np.sin(phase) * 8000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2).reshape(1, -1), "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._count, Fraction(1, 48_000)
        self._count += 960
        return frame


class Watcher:
    """Reads what comes: the newest picture, how many, when, and the sound."""

    def __init__(self) -> None:
        self.newest: Picture | None = None
        self.times: list[float] = []
        self.sound: list[NDArray[np.int16]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self.newest = frame.to_ndarray(format="rgb24")
                    self.times.append(asyncio.get_running_loop().time())
                else:
                    self.sound.append(frame.to_ndarray())
                    del self.sound[:-500]

    def level(self) -> float:
        """Mean of the newest picture; -1 before the first."""
        return -1.0 if self.newest is None else float(self.newest.mean())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def client(
    *tracks: MediaStreamTrack, watch: bool = False, codec: str | None = None
) -> AsyncIterator[tuple[RTCPeerConnection, Watcher, str]]:
    """A peer connection with its offer made: (connection, watcher, SDP offer)."""
    connection = RTCPeerConnection(RTCConfiguration([], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    watcher = Watcher()
    connection.on("track", watcher.watch)
    kinds = {track.kind for track in tracks}
    for track in tracks:
        connection.addTransceiver(track, "sendrecv" if watch else "sendonly")
    for kind in ("video", "audio"):
        if watch and kind not in kinds:
            connection.addTransceiver(kind, "recvonly")
    if codec is not None:
        for transceiver in connection.getTransceivers():
            if transceiver.kind == "video":
                there = transceiver.sender.getCapabilities("video").codecs
                transceiver.setCodecPreferences([c for c in there if c.mimeType.lower() == f"video/{codec.lower()}"])
    try:
        await connection.setLocalDescription(await connection.createOffer())
        yield connection, watcher, connection.localDescription.sdp
    finally:
        for track in tracks:
            track.stop()
        await compat.close(connection)
        await watcher.stop()


async def answered(connection: RTCPeerConnection, answer: str) -> None:
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.01)
