"""What WebRTC costs with plain aiortc: the floor that streamfx is measured against. Started by ``benchmarks.webrtc``.

    python -m benchmarks.echo_server PORT

POST /whip/live answers an offer: what is sent comes straight back (decoded and encoded by aiortc), and who only
watches gets the test pattern, encoded for each viewer anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from fractions import Fraction

import av
import uvicorn
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from fastapi import FastAPI, Request, Response

from streamfx.media.pattern import Pattern

app = FastAPI()
connections: set[RTCPeerConnection] = set()
relay = MediaRelay()


class PatternTrack(MediaStreamTrack):
    """The test pattern in real time, drawn once for everybody."""

    kind = "video"

    def __init__(self, size: tuple[int, int] = (640, 480)) -> None:
        super().__init__()
        drawn = [Pattern(size, 30).picture(n) for n in range(90)]
        self._frames = [av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p") for picture in drawn]
        self._start: float | None = None
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        self._start = self._start or loop.time()
        await asyncio.sleep(max(0.0, self._start + self._count / 30 - loop.time()))
        frame = self._frames[self._count % len(self._frames)]
        frame.pts, frame.time_base = self._count * 3000, Fraction(1, 90_000)
        self._count += 1
        return frame


pattern: list[PatternTrack] = []


@app.post("/{kind}/live", status_code=201)
async def answer(kind: str, request: Request) -> Response:
    connection = RTCPeerConnection(RTCConfiguration([], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    connections.add(connection)

    @connection.on("track")
    def on_track(track: MediaStreamTrack) -> None:
        connection.addTrack(track)

    offer = (await request.body()).decode()
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    if kind == "whep":
        if not pattern:
            pattern.append(PatternTrack())
        connection.addTrack(relay.subscribe(pattern[0], buffered=False))
    await connection.setLocalDescription(await connection.createAnswer())
    return Response(connection.localDescription.sdp, 201, {"Location": "/whip/live/x"}, "application/sdp")


@app.delete("/{rest:path}")
async def leave(rest: str) -> None:
    """Peers go by themselves."""


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
