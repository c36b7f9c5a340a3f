"""The rules of srt:// and rtsp:// URLs, what is hidden of them, and how FFmpeg's packets become tags."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import av
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import UsageError, redact
from streamfx.media.base import SourceRequest, open_source
from streamfx.media.live_input_process import head_of
from streamfx.media.rtmp.flv import parse_audio, parse_video
from streamfx.media.rtsp import camera_url
from streamfx.media.srt import srt_address
from streamfx.media.srt_program import NoProgramError, SrtProgram
from streamfx.media.url import MediaUrl
from streamfx.server.settings import output_from_outside, source_from_outside
from tests.support import Clip


@pytest.mark.parametrize(
    ("url", "place", "options"),
    [
        ("srt://h.example:9000", "srt://h.example:9000", {"mode": "caller"}),
        ("srt://:9000?mode=listener", "srt://127.0.0.1:9000", {"mode": "listener"}),
        ("srt://0.0.0.0:9000?mode=listener&latency=80", "srt://0.0.0.0:9000", {"mode": "listener", "latency": "80000"}),
        ("srt://[::1]:9000?streamid=a%26b%23", "srt://[::1]:9000", {"mode": "caller", "streamid": "a&b#"}),
        ("srt://h:1?passphrase=0123456789", "srt://h:1", {"mode": "caller", "passphrase": "0123456789"}),
    ],
)
def test_srt_urls(url: str, place: str, options: dict[str, str]) -> None:
    assert srt_address(MediaUrl.parse(url)) == (place, options)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("srt://h.example", "has no port; write srt://HOST:PORT"),
        ("srt://:9000", "names no host to call"),
        ("srt://h:9000/live", "name the stream as ?streamid=NAME"),
        ("srt://h:9000?mode=rendezvous", "write mode=caller or mode=listener"),
        ("srt://h:9000?passphrase=short-one", "from 10 to 79 characters"),
        ("srt://h:9000?passphrase=0123456789%0Amode", "from 10 to 79 characters"),
        ("srt://h:9000?latency=120000", "from 0 to 60000"),
        ("srt://h:9000?pasphrase=0123456789", "did you mean 'passphrase'?"),
        ("srt://h:9000?grace=never", "option grace"),
        ("rtsp:///cam", "names no camera"),
        ("rtsp://h/cam?transport=http", "transport=tcp or transport=udp"),
        ("rtsp://h/cam?hwaccel=cud", "did you mean cuda?"),
    ],
)
async def test_what_is_no_source(url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(MediaUrl.parse(url), SourceRequest(MonotonicClock()))
    assert says in str(caught.value)
    assert "0123456789" not in str(caught.value)
    assert "short-one" not in str(caught.value)


async def test_a_port_that_is_taken() -> None:
    with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        url = MediaUrl.parse(f"srt://:{taken.getsockname()[1]}?mode=listener")
        with pytest.raises(UsageError, match="another program uses it"):
            open_source(url, SourceRequest(MonotonicClock()))


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("rtsp://u:p@h/cam", "rtsp://u:p@h/cam"),
        ("rtsp://h/cam?transport=udp", "rtsp://h/cam"),
        ("rtsp://h:554/cam?channel=1&transport=tcp&subtype=0&grace=5", "rtsp://h:554/cam?channel=1&subtype=0"),
        ("rtsps://h/cam?profile1&hwaccel=none&x=a%20b", "rtsps://h/cam?profile1&x=a%20b"),
    ],
)
def test_the_cameras_own_options_go_to_the_camera(url: str, seen: str) -> None:
    assert camera_url(MediaUrl.parse(url)) == seen


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("rtsp://me:pa%3Ass1@h/cam?x=1", {"pa%3Ass1", "pa:ss1"}),
        ("rtsps://me:pass1@h/cam", {"pass1"}),
        ("rtsp://h/cam", set()),
        ("srt://h:1?passphrase=0123456789&streamid=publish:x:me:pw", {"0123456789", "publish:x:me:pw"}),
    ],
)
def test_secrets_are_known_and_hidden(url: str, secrets: set[str]) -> None:
    parsed = MediaUrl.parse(url)
    assert set(parsed.secrets) == {url} | secrets
    for text in (str(parsed), repr(parsed), redact(f"cannot open {url}: I/O error"), redact(f"'{url}'")):
        assert not any(secret in text for secret in secrets)


def test_packets_become_tags_that_rtmp_knows(tmp_path: Path) -> None:
    path = Clip(codec="libx264", rate=48_000, frames=12).write(tmp_path / "clip.ts")
    kinds = []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None:
                continue
            body = head_of(packet.stream, 1, packet) + bytes(packet)
            if packet.stream.type == "audio":
                sound = parse_audio(body)
                assert (sound.codec, sound.kind, sound.data) == ("aac", "frame", bytes(packet))
            else:
                picture = parse_video(body)
                assert (picture.codec, picture.kind, picture.data) == ("h264", "frame", bytes(packet))
                assert picture.composition_ms == round(1000 * float((packet.pts - packet.dts) * packet.time_base))
                kinds.append(picture.keyframe)
        config = parse_video(head_of(container.streams.video[0], 0) + b"sps")
        assert (config.codec, config.kind, config.data) == ("h264", "config", b"sps")
    assert kinds == [n % 5 == 0 for n in range(12)]


@pytest.mark.parametrize("text", ["srt://h:9000?passphrase=0123456789", "rtsp://u:p@h/cam?x=1", "rtsps://h/cam"])
def test_what_may_be_asked_for_over_http(text: str) -> None:
    assert source_from_outside(text) == text
    assert output_from_outside(text).raw == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("srt://:9000?mode=listener", "cannot listen"),
        ("srt://0.0.0.0:9000?mode=listener&passphrase=0123456789", "cannot listen"),
        ("srt://h:9000?mode=rendezvous", "mode=caller"),
    ],
)
def test_what_may_not(text: str, says: str) -> None:
    for check in (source_from_outside, output_from_outside):
        with pytest.raises(UsageError, match=says):
            check(text)
    with pytest.raises(UsageError, match="cannot choose hwaccel"):
        source_from_outside("rtsp://h/cam?hwaccel=auto")
    with pytest.raises(UsageError, match="from 10 to 79"):
        output_from_outside("srt://h:9000?passphrase=short")


def test_without_ffmpegs_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = SrtProgram()
    for use in (program.read, program.write):
        with pytest.raises(NoProgramError, match="SRT needs FFmpeg's program"):
            use("srt://127.0.0.1:9", {})
    # One that was built without it.
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho rtmp tcp udp\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    with pytest.raises(NoProgramError, match="built with libsrt"):
        program.read("srt://127.0.0.1:9", {})
    program.end()
