"""Which encoders and decoders really work here. Drivers may crash or hang the process that tries them, so that is one
of its own: ``python -m streamfx.media.hardware``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from weakref import WeakKeyDictionary

import av
import av.logging
import numpy as np

from streamfx.ipc.child import spawn
from streamfx.ipc.parent import Parent
from streamfx.media.encoders import AUTO, RECIPES, SOFTWARE, Recipe, choose
from streamfx.media.hwaccel import DEVICES, accelerator

logger = logging.getLogger(__name__)

ENCODERS = {
    "libx264": "software H.264",
    **{recipe.codec: recipe.label for recipe in RECIPES.values()},
    "aac": "AAC sound",
}

_TIMEOUT = 30.0
_SIDE = 256


@dataclass(slots=True)
class Faults:
    """Why an encoder (by FFmpeg's name) or a decoding device does not work here; empty if it does."""

    encoders: dict[str, str] = field(default_factory=dict)
    decoders: dict[str, str] = field(default_factory=dict)


def open_encoder(recipe: Recipe, size: tuple[int, int], options: dict[str, str]) -> av.VideoCodecContext:
    """An encoder that stands alone. Raises ``av.FFmpegError``, ``ValueError`` or ``OSError``."""
    context = av.CodecContext.create(recipe.codec, "w", accelerator(recipe.device) if recipe.device else None)
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = *size, recipe.pixels
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.bit_rate = 1_000_000
    context.options = options
    context.open()
    return context


def _encode(name: str) -> None:
    """Encodes one picture, or opens an encoder of sound. Raises what keeps it from that."""
    if name == "aac":
        av.CodecContext.create(name, "w")
        return
    recipe = next((recipe for recipe in RECIPES.values() if recipe.codec == name), Recipe(name, ""))
    context = open_encoder(recipe, (_SIDE, _SIDE), recipe.options(push=True, rate=1_000_000))
    if not [*context.encode(_picture(recipe.pixels)), *context.encode(None)]:
        raise ValueError("it gave nothing")


def _decode(device: str) -> None:
    """Decodes one H.264 picture there. Raises what keeps it from that."""
    decoder = av.CodecContext.create("h264", "r", accelerator(device, fallback=False))
    assert isinstance(decoder, av.VideoCodecContext)
    if not decoder.is_hwaccel:
        raise ValueError("FFmpeg's H.264 decoder here is built without it")
    encoder = open_encoder(Recipe("libx264", ""), (_SIDE, _SIDE), {"preset": "ultrafast"})
    packets = [*encoder.encode(_picture("yuv420p")), *encoder.encode(None)]
    if not [picture for packet in [*packets, None] for picture in decoder.decode(packet)]:
        raise ValueError("it gave nothing")


def _picture(pixels: str) -> av.VideoFrame:
    blank = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(blank, "rgb24").reformat(format=pixels)
    picture.pts = 0
    return picture


def fault_of(attempt: Callable[[str], None], name: str) -> str:
    """Why ``attempt(name)`` fails, empty if it does not. What FFmpeg logs first tells more than the error."""
    with av.logging.Capture() as lines:
        try:
            attempt(name)
        except ValueError as error:
            return "FFmpeg here is built without it" if type(error) is not ValueError else str(error)
        except (OSError, av.FFmpegError, NotImplementedError, RuntimeError, TypeError) as error:
            said = next((text.strip() for _, _, text in lines if text.strip()), "")
            return said.rstrip(".") or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def main() -> int:
    parent = Parent()
    av.logging.set_level(av.logging.ERROR)
    for name in ENCODERS:
        parent.send(kind="encoder", name=name, fault=fault_of(_encode, name))
    for device in DEVICES:
        parent.send(kind="decoder", name=device, fault=fault_of(_decode, device))
    return 0


async def ask() -> Faults:
    """Tries everything in a process of its own. What that did not come to, because a driver crashed or hung, does not
    work."""
    faults = Faults()
    ended = "trying it crashed"
    try:
        async with spawn("streamfx.media.hardware", "hardware") as child, asyncio.timeout(_TIMEOUT):
            while (message := await child.receive()) is not None:
                found = faults.encoders if message["kind"] == "encoder" else faults.decoders
                found[message["name"]] = message["fault"]
    except TimeoutError:
        ended = f"trying it took more than {_TIMEOUT:.0f} s"
    except OSError as error:
        ended = f"no process could be started to try it ({error.strerror})"
    for names, answers in ((ENCODERS, faults.encoders), (DEVICES, faults.decoders)):
        for name in names:
            answers.setdefault(name, ended)
    return faults


_found: list[Faults] = []
"""What was found out; one, or none yet."""

_asking: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def find() -> Mapping[str, str]:
    """Faults of encoders, by FFmpeg's name. Asked once; who comes later gets the same answer."""
    async with _asking.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        if not _found:
            _found.append(await ask())
            working = [name for name, fault in _found[0].encoders.items() if not fault]
            logger.info("encoders=%s", ",".join(working))
    return _found[0].encoders


def known() -> Mapping[str, str]:
    """What ``find`` has found; nothing if it was not asked, or has no answer yet."""
    return _found[0].encoders if _found else {}


def likely() -> bool:
    """Whether asking could find any hardware: on Linux a driver shows itself by a device."""
    places = ("/dev/nvidiactl", "/dev/dxg", "/dev/dri")
    return sys.platform != "linux" or any(Path(place).exists() for place in places)


async def pick(wanted: str, wait: bool) -> str:
    """The encoder to take; without ``wait``, ``auto`` goes by what is known now. Raises ``UsageError`` for a named one
    that does not work here."""
    if wanted == SOFTWARE:
        return SOFTWARE
    if wanted == AUTO:
        return choose(wanted, await find() if wait and likely() else known())
    return choose(wanted, await find())


@contextlib.asynccontextmanager
async def asking_ahead(wanted: str) -> AsyncIterator[None]:
    """Finds out beside what the block does, so that a live output that begins later knows already."""
    if wanted != AUTO or not likely():
        yield
        return
    task = asyncio.create_task(find(), name="encoders")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
