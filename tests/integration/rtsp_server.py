"""A small RTSP server of the tests' own, around the RTP packets that FFmpeg makes: FFmpeg itself serves none.

It speaks what a camera speaks (RFC 2326: OPTIONS, DESCRIBE, SETUP and PLAY over TCP, Basic authentication).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.integration.programs import FFMPEG, free_port, program

_REALM = 'Basic realm="camera"'


class _Packets(asyncio.DatagramProtocol):
    """RTP or RTCP of one track, handed to every player as it comes."""

    def __init__(self, players: dict[asyncio.StreamWriter, dict[int, int]], lane: int) -> None:
        self._players = players
        self._lane = lane

    def datagram_received(self, data: bytes, addr: object) -> None:
        for writer, channels in self._players.items():
            if self._lane in channels and not writer.is_closing():
                writer.write(struct.pack(">cBH", b"$", channels[self._lane], len(data)) + data)


class RtspServer:
    """A camera that shows a clip over and over. ``asked``: the URLs it was asked for."""

    def __init__(self, clip: Path, folder: Path, port: int, login: str) -> None:
        self.port = port
        self.asked: list[str] = []
        self._clip = clip
        self._sdp = folder / "camera.sdp"
        self._login = base64.b64encode(login.encode()).decode()
        self._players: dict[asyncio.StreamWriter, dict[int, int]] = {}
        self._connections: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RtspServer]:
        self._sdp.unlink(missing_ok=True)
        ports = [free_port() & ~1 for _ in range(2)]
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for track, first in enumerate(ports):
                for rtcp in (0, 1):
                    transport, _ = await loop.create_datagram_endpoint(
                        lambda lane=2 * track + rtcp: _Packets(self._players, lane),  # type: ignore[misc]
                        ("127.0.0.1", first + rtcp),
                    )
                    stack.callback(transport.close)
            await stack.enter_async_context(self._camera(ports))
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            stack.callback(server.close)
            async with asyncio.timeout(10):
                while not self._sdp.exists() or "m=audio" not in self._sdp.read_text():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            try:
                yield self
            finally:
                self.hang_up()

    def hang_up(self) -> None:
        """Ends all connections."""
        for writer in self._connections:
            writer.close()

    def _camera(self, ports: list[int]) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return program(
            FFMPEG or "", "-hide_banner", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(self._clip),
            "-map", "0:v", "-c", "copy", "-f", "rtp", f"rtp://127.0.0.1:{ports[0]}?pkt_size=1200",
            "-map", "0:a", "-c", "copy", "-f", "rtp", f"rtp://127.0.0.1:{ports[1]}?pkt_size=1200",
            "-sdp_file", str(self._sdp),
        )  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        channels: dict[int, int] = {}
        try:
            while head := await _request(reader):
                self._answer(head, channels, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(writer)
            self._players.pop(writer, None)
            writer.close()

    def _answer(self, head: str, channels: dict[int, int], writer: asyncio.StreamWriter) -> None:
        method, url, *_ = head.split()
        number = re.search(r"CSeq: *(\d+)", head, re.IGNORECASE)
        lines = ["RTSP/1.0 200 OK", f"CSeq: {number[1] if number else 0}", "Session: 1"]
        body = ""
        if method != "OPTIONS" and f"Basic {self._login}" not in head:
            lines[0] = "RTSP/1.0 401 Unauthorized"
            lines.append(f"WWW-Authenticate: {_REALM}")
        elif method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            self.asked.append(url)
            body = "\r\n".join(self._described())
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            track = int(url.rstrip("/")[-1])
            channels[2 * track], channels[2 * track + 1] = 2 * track, 2 * track + 1
            lines.append(f"Transport: RTP/AVP/TCP;unicast;interleaved={2 * track}-{2 * track + 1}")
        elif method == "PLAY":
            self._players[writer] = channels
        writer.write(("\r\n".join([*lines, "", ""]) + body).encode())

    def _described(self) -> Iterator[str]:
        track = -1
        for line in self._sdp.read_text().splitlines():
            if line.startswith("m="):
                track += 1
                yield re.sub(r"^(m=\w+) \d+", r"\1 0", line)
                yield f"a=control:track{track}"
            elif not line.startswith("SDP:"):
                yield line
        yield ""


async def _request(reader: asyncio.StreamReader) -> str:
    """The next request's lines; RTCP from the player is passed over."""
    while (first := await reader.read(1)) == b"$":
        _, size = struct.unpack(">BH", await reader.readexactly(3))
        await reader.readexactly(size)
    return (first + await reader.readuntil(b"\r\n\r\n")).decode() if first else ""
