"""A real OBS under Xvfb, drawn by the processor, with settings of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamfx.core.errors import StreamFXError
from streamfx.obs.connection import Obs, connect
from tests.integration.programs import free_port
from tests.support import Picture

OBS = shutil.which("obs")
XVFB = shutil.which("Xvfb")
_REQUIRED = os.environ.get("STREAMFX_REQUIRE_PROGRAMS") == "1"

needs_obs = pytest.mark.skipif(not (OBS and XVFB) and not _REQUIRED, reason="obs or Xvfb is not installed")
needs_luajit = pytest.mark.skipif(shutil.which("luajit") is None and not _REQUIRED, reason="luajit is not installed")

PASSWORD = secrets.token_hex(16)
SCENE, OTHER_SCENE = "Main", "Break"

_LATEST_WIZARD = 0x7FFFFFFF
"""A version that is later than any: OBS has nothing to tell of what is new in it."""


@dataclass
class RunningObs:
    """``log``: all it has written so far, scripts included."""

    folder: Path
    port: int
    display: str
    process: asyncio.subprocess.Process
    websocket: Obs = field(init=False)

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "obs.log").read_text(errors="replace")

    async def ask(self, request: str, **data: Any) -> dict[str, Any]:
        return await self.websocket.ask(request, **data)

    async def inputs(self) -> list[str]:
        return [entry["inputName"] for entry in (await self.ask("GetInputList"))["inputs"]]

    async def picture(self, source: str = SCENE) -> Picture:
        """What a scene or source shows, ``(H, W, 3) uint8``, at the canvas's size."""
        taken = await self.ask("GetSourceScreenshot", sourceName=source, imageFormat="png")
        data = np.frombuffer(base64.b64decode(taken["imageData"].partition(",")[2]), np.uint8)
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]).astype(np.uint8)

    async def see(self, true: Callable[[Picture], object], what: str, seconds: float = 20) -> Picture:
        """Waits until the scene shows what is wanted."""
        try:
            async with asyncio.timeout(seconds):
                while not true(picture := await self.picture()):  # noqa: ASYNC110 - OBS is asked
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"OBS did not show {what} within {seconds} s; its log:\n{self.log[-3000:]}") from None
        return picture

    async def plays(self, source: str, seconds: float = 20) -> None:
        """Waits until a Media source has something to play."""
        state = ""
        async with asyncio.timeout(seconds):
            while state != "OBS_MEDIA_STATE_PLAYING":
                await asyncio.sleep(0.2)
                state = (await self.ask("GetMediaInputStatus", inputName=source))["mediaState"]

    async def says(self, text: str, seconds: float = 10) -> None:
        """Waits until it is in the log."""
        async with asyncio.timeout(seconds):
            while text not in self.log:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def _write_settings(home: Path, port: int, size: tuple[int, int], scripts: list[dict[str, Any]]) -> None:
    settings = home / "obs-studio"
    profile = settings / "basic" / "profiles" / "test"
    scenes = settings / "basic" / "scenes"
    profile.mkdir(parents=True)
    scenes.mkdir(parents=True)
    (settings / "global.ini").write_text(
        f"""[General]
FirstRun=true
LastVersion={_LATEST_WIZARD}
InfoIncrement={_LATEST_WIZARD}
EnableAutoUpdates=false
[Basic]
Profile=test
ProfileDir=test
SceneCollection=test
SceneCollectionFile=test
[OBSWebSocket]
FirstLoad=false
ServerEnabled=true
ServerPort={port}
AlertsEnabled=false
AuthRequired=true
ServerPassword={PASSWORD}
"""
    )
    width, height = size
    (profile / "basic.ini").write_text(
        f"""[General]
Name=test
[Video]
BaseCX={width}
BaseCY={height}
OutputCX={width}
OutputCY={height}
FPSType=1
FPSInt=15
[Output]
Mode=Simple
Reconnect=false
[SimpleOutput]
VBitrate=600
StreamEncoder=x264
Preset=ultrafast
"""
    )
    collection = {
        "name": "test",
        "current_scene": SCENE,
        "current_program_scene": SCENE,
        "scene_order": [{"name": SCENE}, {"name": OTHER_SCENE}],
        "sources": [{"id": "scene", "name": name, "settings": {}} for name in (SCENE, OTHER_SCENE)],
        "modules": {"scripts-tool": scripts},
    }
    (scenes / "test.json").write_text(json.dumps(collection))


@contextlib.asynccontextmanager
async def _display(size: tuple[int, int]) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        XVFB or "", "-displayfd", "1", "-screen", "0", f"{size[0]}x{size[1]}x24", "-nolisten", "tcp",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        number = await asyncio.wait_for(process.stdout.readline(), 10)
        yield f":{int(number)}"
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def obs(
    folder: Path,
    *,
    size: tuple[int, int] = (640, 360),
    screen: tuple[int, int] = (800, 600),
    scripts: list[dict[str, Any]] | None = None,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[RunningObs]:
    """OBS for the length of the block. ``size``: of the canvas; ``scripts``: as its scene collection lists them."""
    port, home = free_port(), folder / "home"
    _write_settings(home, port, size, scripts or [])
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    drawn = {"LIBGL_ALWAYS_SOFTWARE": "1", "LP_NUM_THREADS": "1", "QT_QPA_PLATFORM": "xcb", "LC_ALL": "C.UTF-8"}
    # OBS would ask its makers' server for a newer list of platforms.
    local = {"https_proxy": "http://127.0.0.1:9", "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    async with _display(screen) as display:
        with (folder / "obs.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                OBS or "", "--multi", "--disable-updater", "--disable-missing-files-check",
                env=os.environ | own | drawn | local | {"DISPLAY": display} | (environment or {}),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        running = RunningObs(folder, port, display, process)
        try:
            async with await _connected(running) as websocket:
                running.websocket = websocket
                yield running
        finally:
            # It asks nothing when it is told to end so, and would otherwise, while it streams.
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _connected(running: RunningObs) -> contextlib.AbstractAsyncContextManager[Obs]:
    """A connection to an OBS that may be still starting."""
    async with asyncio.timeout(30):
        while True:
            assert running.process.returncode is None, f"OBS ended; its log:\n{running.log[-3000:]}"
            with contextlib.suppress(StreamFXError):
                async with connect(running.address, PASSWORD) as websocket:
                    await websocket.ask("GetVersion")
                    break
            await asyncio.sleep(0.2)
    return connect(running.address, PASSWORD)
