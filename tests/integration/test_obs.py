"""A real OBS: the script in it, ``streamfx obs`` from outside, and its stream into a session.

Debian's OBS has no Browser source, so the picture comes by the Media source that takes its place; the page that the
Browser source would show is tested in a browser (tests/e2e).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from streamfx.media.pattern import read_counter
from tests.e2e.browser import Server, blocky, server
from tests.integration.obs_program import OTHER_SCENE, PASSWORD, SCENE, RunningObs, needs_luajit, needs_obs, obs
from tests.integration.programs import free_port, program
from tests.support import ROOT, Picture, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SCRIPT = ROOT / "plugins" / "obs" / "streamfx.lua"
HERE = Path(__file__).parent
TOKEN = "a-token'with+signs"
CELL = 32
PATTERN = {
    "id": "pattern",
    "source": "testpattern://?size=640x360&fps=15",
    "filter": {"name": "pixelate", "params": {"cell": CELL}},
}


def blocks(picture: Picture) -> bool:
    return blocky(picture, CELL)


def counted(picture: Picture) -> bool:
    return read_counter(picture) is not None


async def streamfx_obs(
    *arguments: str, server: Server | None = None, obs: RunningObs | None = None, password: str = PASSWORD
) -> tuple[int, str]:
    """The command as a user runs it, told where both are. Returns its exit code and all it said."""
    where = ["--server", server.address] if server else []
    where += ["--obs", obs.address] if obs else []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamfx", "obs", *arguments, *where,
        env=environment(OBS_WEBSOCKET_PASSWORD=password, STREAMFX_TOKEN=TOKEN),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, said.decode()


@needs_luajit
async def test_the_script_without_obs() -> None:
    async with program("luajit", str(HERE / "obs_pure.lua"), str(SCRIPT)) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()


@needs_luajit
async def test_the_script_and_a_browser_source() -> None:
    """A server that says nothing, one that is not there, and one that comes: the page is loaded anew then."""
    session = b'{"id": "live", "state": "idle", "size": [640, 360], "filter": null, "publisher": null}'
    asked: list[str] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked.append(head)
            body = session if "/sessions/live " in head else b'{"filters": []}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()

    port = free_port()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as quiet:
        ports = (str(quiet.sockets[0].getsockname()[1]), str(port))
        process = await asyncio.create_subprocess_exec(
            "luajit", str(HERE / "obs_browser.lua"), str(SCRIPT), *ports,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if await asyncio.wait_for(process.stdout.readline(), 20) == b"away\n":
                async with await asyncio.start_server(answer, "127.0.0.1", port):
                    said, errors = await asyncio.wait_for(process.communicate(b"\n"), 20)
            else:
                said, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert said == b"fine\n", errors.decode()
    assert all("\r\nAuthorization: Bearer t0ken\r\n" in head for head in asked)


@needs_obs
async def test_the_script_adds_the_source_and_refreshes_it(tmp_path: Path) -> None:
    """It is added when OBS starts, though its session is not there yet, and shown as soon as it is."""
    async with server(token=TOKEN) as running:
        told = {"server": running.address, "token": TOKEN, "session": "pattern", "add_on_load": True}
        async with obs(tmp_path, scripts=[{"path": str(SCRIPT), "settings": told}]) as studio:
            assert "Loaded lua script: streamfx.lua" in studio.log
            assert await studio.inputs() == ["streamfx"]
            await studio.says("The server has no session pattern.")
            (await running.http.post("/sessions", json=PATTERN)).raise_for_status()
            await studio.says("refreshing streamfx")
            picture = await studio.see(blocks, "the pixelated pattern")
            assert not counted(picture)
            (await running.http.put("/sessions/pattern/filter", json={"name": None})).raise_for_status()
            first = read_counter(await studio.see(counted, "the pattern as it is"))
            assert first is not None
            await studio.see(lambda seen: (read_counter(seen) or 0) > first + 5, "more of it")
            assert "[Lua: streamfx.lua] Error" not in studio.log, studio.log
            placed = await studio.ask("GetSceneItemList", sceneName=SCENE)
            assert [item["sceneItemTransform"]["boundsWidth"] for item in placed["sceneItems"]] == [640.0]


@needs_obs
async def test_the_dialogue_of_the_script(tmp_path: Path) -> None:
    """Its buttons, list and sliders, worked inside OBS by a script that stands for the user."""
    async with server(token=TOKEN) as running:
        (await running.http.post("/sessions", json=PATTERN)).raise_for_status()
        await running.get("/filters")
        told = {"server": running.address, "token": TOKEN, "session": "pattern", "scene": OTHER_SCENE}
        user = {"path": str(HERE / "obs_dialogue.lua"), "settings": told | {"placement": "corner"}}
        async with obs(tmp_path, scripts=[user], environment={"STREAMFX_LUA": str(SCRIPT)}) as studio:
            session = await running.until("/sessions/pattern", lambda now: now["filter"]["name"] == "toon")
            session = await running.until("/sessions/pattern", lambda now: now["filter"]["params"]["ink"] == 0.25)
            assert session["filter"]["params"]["levels"] == 5
            assert session["filter"]["params"]["smoothing"] == 0.6
            said = [line.partition("DIALOGUE ")[2] for line in studio.log.splitlines() if "DIALOGUE " in line]
            assert said == [
                "state: Connected: session pattern is running, 640×360.",
                "filter: pixelate",
                f"row: Cell {CELL}",
                f"state: streamfx is in the scene {OTHER_SCENE}.",
                "row: Ink 0.85",
            ]
            assert "[Lua: obs_dialogue.lua] Error" not in studio.log, studio.log
            placed = await studio.ask("GetSceneItemList", sceneName=OTHER_SCENE)
            where = placed["sceneItems"][0]["sceneItemTransform"]
            assert (where["positionX"], where["positionY"]) == pytest.approx((640 * 2 / 3, 360 * 2 / 3))
            await studio.ask("SetCurrentProgramScene", sceneName=OTHER_SCENE)
            await studio.plays("streamfx")


@needs_obs
async def test_set_up_from_outside(tmp_path: Path) -> None:
    async with server(token=TOKEN) as running, obs(tmp_path) as studio:
        for session in (PATTERN, PATTERN | {"id": "other"}):
            (await running.http.post("/sessions", json=session)).raise_for_status()
        for word in ("now", "still"):
            code, said = await streamfx_obs("setup", "--session", "pattern", server=running, obs=studio)
            assert code == 0, said
            assert f"streamfx is {word} in the scene {SCENE}" in said
            assert "no Browser source" in said
            assert TOKEN not in said
        await studio.see(blocks, "the pixelated pattern")
        assert await studio.inputs() == ["streamfx"]
        assert len((await studio.ask("GetSceneItemList", sceneName=SCENE))["sceneItems"]) == 1
        changed = ("setup", "--session", "other", "--scene", OTHER_SCENE, "--sound")
        code, said = await streamfx_obs(*changed, server=running, obs=studio)
        assert code == 0, said
        assert await studio.inputs() == ["streamfx"]
        settings = (await studio.ask("GetInputSettings", inputName="streamfx"))["inputSettings"]
        assert settings["input"] == f"{running.address}/sessions/other/hls/index.m3u8"
        await studio.plays("streamfx")
        assert not (await studio.ask("GetInputMute", inputName="streamfx"))["inputMuted"]

        await studio.ask(
            "CreateInput", sceneName=SCENE, inputName="theirs", inputKind="color_source_v3", inputSettings={}
        )
        failing = {
            ("setup", "--scene", "Mian"): "OBS has no scene 'Mian'; it has Break, Main",
            ("setup", "--name", "theirs"): "OBS has another source called 'theirs'",
            ("setup", "--send", "whip"): "use --send rtmp",
            ("setup", "--session", "pattern", "--send", "rtmp"): "takes no publisher by RTMP",
            ("remove", "--name", "theirs"): "is left alone",
        }
        for arguments, sentence in failing.items():
            of_server = running if arguments[0] == "setup" else None
            code, said = await streamfx_obs(*arguments, server=of_server, obs=studio)
            assert (code, len(said.splitlines())) == (2, 1), said
            assert sentence in said
        for password, sentence in {"not-the-one": "is not the one it has", "": "is empty, but OBS wants one"}.items():
            code, said = await streamfx_obs("setup", server=running, obs=studio, password=password)
            assert (code, len(said.splitlines())) == (1, 1), said
            assert sentence in said
        code, said = await streamfx_obs("remove", obs=studio)
        assert code == 0, said
        assert await studio.inputs() == ["theirs"]


@needs_obs
async def test_obs_publishes_to_a_session(tmp_path: Path) -> None:
    async with server(token=TOKEN) as running, obs(tmp_path) as studio:
        for _ in range(2):
            code, said = await streamfx_obs("setup", "--send", "rtmp", "--start", server=running, obs=studio)
            assert code == 0, said
            assert "Its stream runs." in said
        live = await running.until("/sessions/live", lambda now: now["state"] == "running")
        assert (live["publisher"], live["size"]) == ({"kind": "rtmp"}, [640, 360])
        assert live["ingest"]["rtmp"]["key"] not in said
        await running.until("/sessions/live/stats", lambda now: now["fps_in"] > 0)
        assert await studio.inputs() == [], "OBS must not see itself"
