"""What OBS is asked for, where the OBS that tests can have lacks it: its Browser source and WHIP; and the sentences for
a server or an OBS that is not what it should be."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from streamfx.cli import main
from streamfx.core.errors import UsageError
from streamfx.obs.connection import Obs
from streamfx.obs.session import WatchedSession, fetch_session
from streamfx.obs.source import BROWSER, Placed, put_source
from streamfx.obs.stream import send_to

TOKEN = "t0ken-of-the-server"

LIVE = WatchedSession(
    id="live",
    size=(1280, 720),
    page="http://127.0.0.1:8080/view/live",
    playlist="http://127.0.0.1:8080/sessions/live/hls/index.m3u8",
    whip="http://127.0.0.1:8080/whip/live",
    rtmp=("rtmp://127.0.0.1:1935/live", "k3y"),
    token=TOKEN,
)


class FakeObs:
    """Answers requests from a table, and remembers those that change something."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        self.answers = {
            "GetInputKindList": {"inputKinds": ["ffmpeg_source", "browser_source"]},
            "GetSceneList": {"currentProgramSceneName": "Main", "scenes": [{"sceneName": "Main"}]},
            "GetVideoSettings": {"baseWidth": 1920, "baseHeight": 1080},
            "GetInputList": {"inputs": []},
            "CreateInput": {"sceneItemId": 3},
            "GetVersion": {"obsVersion": "30.2.3"},
            "GetStreamServiceSettings": {"streamServiceType": "rtmp_common", "streamServiceSettings": {}},
            "GetStreamStatus": {"outputActive": False},
        } | answers
        self.changes: dict[str, dict[str, Any]] = {}

    async def ask(self, request: str, **data: Any) -> dict[str, Any]:
        if not request.startswith("Get"):
            self.changes[request] = data
        return self.answers.get(request, {})

    @property
    def obs(self) -> Obs:
        return cast(Obs, self)


async def test_browser_source() -> None:
    fake = FakeObs()
    assert await put_source(fake.obs, LIVE, "streamfx", None, sound=True) == Placed(BROWSER, "Main", True)
    made = fake.changes["CreateInput"]
    assert (made["sceneName"], made["inputName"], made["inputKind"]) == ("Main", "streamfx", BROWSER)
    assert made["inputSettings"] == {
        "is_local_file": False,
        "url": f"http://127.0.0.1:8080/view/live?audio=1#token={TOKEN}",
        "width": 1280,
        "height": 720,
        "reroute_audio": True,
    }
    where = fake.changes["SetSceneItemTransform"]
    assert (where["sceneItemId"], where["sceneItemTransform"]["boundsWidth"]) == (3, 1920.0)


async def test_browser_source_of_unknown_size_is_as_large_as_the_canvas() -> None:
    fake = FakeObs()
    await put_source(fake.obs, dataclasses.replace(LIVE, size=None, token=""), "streamfx", None, sound=False)
    settings = fake.changes["CreateInput"]["inputSettings"]
    assert (settings["width"], settings["height"]) == (1920, 1080)
    assert settings["url"] == "http://127.0.0.1:8080/view/live"


async def test_whip() -> None:
    fake = FakeObs()
    await send_to(fake.obs, LIVE, "whip")
    assert fake.changes["SetStreamServiceSettings"] == {
        "streamServiceType": "whip_custom",
        "streamServiceSettings": {"server": LIVE.whip, "bearer_token": TOKEN},
    }


async def test_a_stream_to_elsewhere_is_left_alone() -> None:
    fake = FakeObs(GetStreamStatus={"outputActive": True})
    with pytest.raises(Exception, match="stop that first"):
        await send_to(fake.obs, LIVE, "rtmp")
    assert fake.changes == {}


def test_secrets_are_not_shown() -> None:
    assert TOKEN not in repr(LIVE)
    assert "k3y" not in repr(LIVE)


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Makes a web server that answers everything in one way; gives its address."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def answer(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs ``streamfx obs``; gives its exit code and its one sentence."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("STREAMFX_TOKEN", TOKEN)
    monkeypatch.delenv("OBS_WEBSOCKET_PASSWORD", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["streamfx", "obs", *arguments])
        code = main()
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert TOKEN not in err
        return code, err

    return run


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


SESSION = {
    "size": None,
    "ingest": {"whip": None, "rtmp": None},
    "play": {"view": "/view/live", "hls": "/sessions/live/hls/index.m3u8"},
}


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        (404, b"{}", 2, "has no session 'live'"),
        (401, b"{}", 1, "does not take the token in STREAMFX_TOKEN"),
        (429, b'{"detail": "slow down"}', 1, "refuses: slow down"),
        (200, b"<html>", 1, "is no streamfx server"),
        (200, b'{"size": 1}', 1, "is no streamfx server"),
    ],
)
def test_servers(
    answering: Callable[[int, bytes], str],
    said: Callable[..., tuple[int, str]],
    status: int,
    body: bytes,
    code: int,
    says: str,
) -> None:
    found = said("setup", "--server", answering(status, body))
    assert found[0] == code
    assert says in found[1]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "ftp://x", "http://", "http://h:x", "http://h/path", "http://h?x"]
)
def test_bad_server_address(said: Callable[..., tuple[int, str]], address: str) -> None:
    assert said("setup", "--server", address)[0] == 2


def test_nobody_there(said: Callable[..., tuple[int, str]], answering: Callable[[int, bytes], str]) -> None:
    code, text = said("setup", "--server", f"http://127.0.0.1:{closed_port()}")
    assert (code, "streamfx serve" in text) == (1, True)
    here = answering(200, json.dumps(SESSION).encode())
    code, text = said("setup", "--server", here, "--obs", f"ws://127.0.0.1:{closed_port()}")
    assert (code, "OBS does not answer" in text) == (1, True)
    code, text = said("setup", "--server", here, "--obs", here.replace("http", "ws"))
    assert (code, "does not speak obs-websocket 5" in text) == (1, True)
    code, text = said("setup", "--server", here, "--obs", "127.0.0.1:4455")
    assert (code, "ws://HOST:PORT" in text) == (2, True)
    code, text = said("setup", "--server", here, "--send", "srt")
    assert (code, "choose rtmp or whip" in text) == (2, True)


def test_a_session_without_publishers(answering: Callable[[int, bytes], str]) -> None:
    session = fetch_session(answering(200, json.dumps(SESSION).encode()), "live", "")
    for protocol in ("rtmp", "whip"):
        with pytest.raises(UsageError, match="takes no publisher"):
            asyncio.run(send_to(FakeObs().obs, session, protocol))


def test_the_library_is_missing(said: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("streamfx.obs", "streamfx.cli.obs"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "simpleobsws", None)
    code, text = said("setup")
    assert code == 1
    assert "pip install 'streamfx[obs]'" in text
