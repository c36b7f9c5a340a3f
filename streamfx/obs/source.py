"""A source in OBS that shows a session: made, brought up to date, or removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamfx.core.errors import UsageError
from streamfx.obs.connection import NOT_FOUND, Obs, RefusedError
from streamfx.obs.session import WatchedSession

BROWSER, MEDIA = "browser_source", "ffmpeg_source"

_ADDRESS = {BROWSER: "url", MEDIA: "input"}
_LEFT_AND_TOP, _CENTRE = 5, 0


@dataclass(frozen=True)
class Placed:
    """Which kind of source is in which scene. ``made``: whether it is new."""

    kind: str
    scene: str
    made: bool


async def put_source(obs: Obs, session: WatchedSession, name: str, scene: str | None, sound: bool) -> Placed:
    """Puts a source of that name into a scene (None: the current one), fitted to the canvas. One that is there is
    brought up to date. Raises ``UsageError`` or ``StreamFXError``."""
    kinds = (await obs.ask("GetInputKindList", unversioned=True))["inputKinds"]
    kind = BROWSER if BROWSER in kinds else MEDIA
    scene = await _find_scene(obs, scene)
    video = await obs.ask("GetVideoSettings")
    canvas = video["baseWidth"], video["baseHeight"]
    settings = _browser(session, canvas, sound) if kind == BROWSER else _media(session)
    present = await _kind_of(obs, name)
    if present is None:
        made = await obs.ask(
            "CreateInput", sceneName=scene, inputName=name, inputKind=kind, inputSettings=settings,
            sceneItemEnabled=True,
        )  # fmt: skip
        item = made["sceneItemId"]
    elif present == kind:
        await obs.ask("SetInputSettings", inputName=name, inputSettings=settings, overlay=True)
        item = await _item_in(obs, scene, name)
        if item is None:
            item = (await obs.ask("CreateSceneItem", sceneName=scene, sourceName=name))["sceneItemId"]
    else:
        raise UsageError(f"OBS has another source called {name!r}; choose another name with --name")
    await obs.ask("SetInputMute", inputName=name, inputMuted=not sound)
    await _fit(obs, scene, item, canvas)
    return Placed(kind, scene, present is None)


async def remove_source(obs: Obs, name: str) -> None:
    """Removes a source that shows a session, from all scenes. Raises ``UsageError`` or ``StreamFXError``."""
    kind = await _kind_of(obs, name)
    if kind is None:
        raise UsageError(f"OBS has no source called {name!r}")
    settings = (await obs.ask("GetInputSettings", inputName=name))["inputSettings"]
    address = str(settings.get(_ADDRESS.get(kind, ""), ""))
    if "/view/" not in address and "/hls/index.m3u8" not in address:
        raise UsageError(f"the source {name!r} in OBS does not show a streamfx session, so it is left alone")
    # OBS takes items of removed sources out of a scene only when it draws it.
    for scene in (await obs.ask("GetSceneList"))["scenes"]:
        item = await _item_in(obs, scene["sceneName"], name)
        if item is not None:
            await obs.ask("RemoveSceneItem", sceneName=scene["sceneName"], sceneItemId=item)
    if await _kind_of(obs, name) is not None:
        await obs.ask("RemoveInput", inputName=name)


async def _find_scene(obs: Obs, scene: str | None) -> str:
    found = await obs.ask("GetSceneList")
    if scene is None:
        return str(found["currentProgramSceneName"])
    names = [entry["sceneName"] for entry in found["scenes"]]
    if scene not in names:
        raise UsageError(f"OBS has no scene {scene!r}; it has {', '.join(sorted(names))}")
    return scene


async def _kind_of(obs: Obs, name: str) -> str | None:
    """The kind of the source of that name, None if there is none."""
    inputs = (await obs.ask("GetInputList"))["inputs"]
    kinds = [str(entry["unversionedInputKind"]) for entry in inputs if entry["inputName"] == name]
    return kinds[0] if kinds else None


async def _item_in(obs: Obs, scene: str, name: str) -> int | None:
    """The source's place in a scene."""
    try:
        return int((await obs.ask("GetSceneItemId", sceneName=scene, sourceName=name))["sceneItemId"])
    except RefusedError as refused:
        if refused.code != NOT_FOUND:
            raise
        return None


def _browser(session: WatchedSession, canvas: tuple[int, int], sound: bool) -> dict[str, Any]:
    width, height = session.size or canvas
    address = session.page_address(sound)
    return {"is_local_file": False, "url": address, "width": width, "height": height, "reroute_audio": sound}


def _media(session: WatchedSession) -> dict[str, Any]:
    quoted = session.token.replace("'", r"'\''")  # as FFmpeg reads it
    header = f"headers='Authorization: Bearer {quoted}'" if session.token else ""
    return {
        "is_local_file": False,
        "input": session.playlist,
        "input_format": "hls",
        "reconnect_delay_sec": 2,
        "clear_on_media_end": False,
        "ffmpeg_options": header,
    }


async def _fit(obs: Obs, scene: str, item: int, canvas: tuple[int, int]) -> None:
    transform = {
        "positionX": 0.0,
        "positionY": 0.0,
        "alignment": _LEFT_AND_TOP,
        "boundsType": "OBS_BOUNDS_SCALE_INNER",
        "boundsAlignment": _CENTRE,
        "boundsWidth": float(canvas[0]),
        "boundsHeight": float(canvas[1]),
    }
    await obs.ask("SetSceneItemTransform", sceneName=scene, sceneItemId=item, sceneItemTransform=transform)
