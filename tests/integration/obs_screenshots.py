"""Makes the pictures of OBS for the documentation: ``python -m tests.integration.obs_screenshots``.

The bundled clip stands for the camera. Wants xdotool and openbox besides OBS and Xvfb.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import yaml

from tests.e2e.browser import server
from tests.integration.obs_program import RunningObs, obs
from tests.integration.programs import FFMPEG
from tests.support import BUNNY, ROOT

TARGET = ROOT / "docs" / "images"
SCRIPT = ROOT / "plugins" / "obs" / "streamfx.lua"
SCREEN = (1600, 1240)

_SESSION = {
    "source": f"file://{BUNNY}?realtime=1&loop=1",
    "size": "960x540",
    "budget_ms": 1000,
    "filter": {"name": "toon", "params": {"levels": 6}},
}


async def _run(studio: RunningObs, *command: str) -> None:
    process = await asyncio.create_subprocess_exec("env", f"DISPLAY={studio.display}", *command)
    assert await process.wait() == 0, command


async def _shoot(studio: RunningObs, name: str, size: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> None:
    await _run(
        studio, FFMPEG or "", "-loglevel", "error", "-y", "-f", "x11grab", "-video_size", f"{size[0]}x{size[1]}",
        "-i", f"{studio.display}+{corner[0]},{corner[1]}", "-frames:v", "1", "-q:v", "3", str(TARGET / name),
    )  # fmt: skip


async def take(folder: Path) -> None:
    config = folder / "server.yaml"
    config.write_text(yaml.safe_dump({"sessions": {"live": _SESSION}}))
    async with server("--config", str(config)) as running:
        told = {"server": running.address, "add_on_load": True}
        script = {"path": str(SCRIPT), "settings": told}
        async with obs(folder, scripts=[script], size=(1280, 720), screen=SCREEN) as studio:
            manager = await asyncio.create_subprocess_exec("env", f"DISPLAY={studio.display}", "openbox")
            await asyncio.sleep(2)
            main = ("xdotool", "search", "--name", "^OBS 29")
            await _run(studio, *main, "windowactivate", "windowmove", "0", "0", "windowsize", "1180", "900")
            await studio.plays("streamfx")
            await asyncio.sleep(8)
            await _shoot(studio, "obs-scene.jpg", (1180, 900))
            await _run(studio, "xdotool", "key", "alt+t")
            await asyncio.sleep(1)
            await _run(studio, "xdotool", "key", "--delay", "100", "Down", "Down", "Down", "Return")
            await asyncio.sleep(2)
            dialogue = ("xdotool", "search", "--sync", "--name", "^Scripts$")
            await _run(studio, *dialogue, "windowmove", "0", "0", "windowsize", "1180", "1180")
            await asyncio.sleep(3)
            await _shoot(studio, "obs-script.jpg", (620, 1200), (580, 0))
            manager.terminate()
            await manager.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(take(Path(folder)))


if __name__ == "__main__":
    main()
