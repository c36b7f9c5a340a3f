"""The embedded restyler: a small streaming diffusion model that comes with the package (docs/models.md)."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from streamfx.core.errors import UsageError
from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup
from streamfx.models.tiny.styles import BY_NAME, match
from streamfx_plugins.ahead import ENGINE, check_engine, made_ahead
from streamfx_plugins.guided import grow
from streamfx_plugins.pictures import read_picture, to_frames
from streamfx_plugins.steady import SHARE, Steady

if TYPE_CHECKING:
    import torch

    from streamfx.engines.build import Order
    from streamfx.engines.takeover import EngineTakeover
    from streamfx.models.tiny.stream import TinyLook

_LEAST = 16
"""Pixels a side: what one token of the transformer stands for."""

_MULTIPLE = 8

_CALIBRATING = 24
"""Frames that int8 is scaled by."""

_THUMBNAILS = {name: f"/static/img/styles/{name}.jpg" for name in BY_NAME}
"""What the page shows; made by examples/train_restyle/pictures.py."""

_LEVELS = ((2, 1.0, 1.0, 1), (1, 0.75, 1.0, 1), (1, 0.75, 0.75, 1), (1, 0.6, 0.625, 2))
"""For each quality level: the most steps, the shares of the sizes it is drawn at and the transformer works at, and
which of the pictures the transformer sees."""


def _named(text: str) -> str:
    try:
        return match(text).name
    except UsageError as error:
        raise ValueError(str(error)) from None


def _named_or_none(text: str) -> str:
    return _named(text) if text.strip() else ""


class RestyleParams(Params):
    """Which style, how much of it, and how steady."""

    style: Annotated[str, AfterValidator(_named)] = Field(
        "ukiyo-e",
        max_length=200,
        title="Style",
        description="a name, or a few words that describe it; it says which style it took",
        examples=list(BY_NAME),
        json_schema_extra={"x-thumbnails": dict(_THUMBNAILS)},
    )
    other: Annotated[str, AfterValidator(_named_or_none)] = Field(
        "",
        max_length=200,
        title="Other style",
        description="a second style to blend in",
        examples=list(BY_NAME),
        json_schema_extra={"x-thumbnails": dict(_THUMBNAILS)},
    )
    blend: float = Field(0.5, ge=0, le=1, title="Blend", description="0: only the style, 1: only the other one")
    strength: float = Field(1.0, ge=0, le=1, title="Strength", description="0: the source, 1: all of the style")
    keep_colors: float = Field(
        0.0, ge=0, le=1, title="Keep colours", description="how much of the source's colours stays"
    )
    temporal: float = Field(1.0, ge=0, le=1, title="Steadiness", description="how much earlier pictures count")
    steps: int = Field(1, ge=1, le=2, title="Steps", description="of denoising; the second is a frame of delay")
    guidance: Literal["none", "self", "onetime"] = Field(
        "none", title="Guidance", description="how the style is stressed: not, or by residual guidance"
    )
    guidance_scale: float = Field(1.3, ge=1, le=3, title="Guidance scale", description="how strongly")
    skip: float = Field(
        1.0, ge=0.9, le=1, title="Skip alike", description="frames more alike than this may be skipped; 1 skips none"
    )
    side: int = Field(
        256, ge=128, le=512, title="Fineness", description="the transformer works at the area of a square of this side"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, title="Seed", description="of the noise")

    style_image: str = at_setup("", "a picture whose style is taken instead of a named one")
    detail: int = at_setup(384, "pixels: drawn at the area of a square of this side, then grown", ge=64, le=2048)
    precision: Literal["auto", "single", "half"] = at_setup("auto", "half where the processor multiplies bfloat16")
    device: str = at_setup("auto", "auto, cpu, cuda or cuda:N")
    engine: str = at_setup("eager", ENGINE)
    calibrate: str = at_setup("", "a clip that int8 engines are scaled by; by default the stream's first frames")


class Restyle(Filter[RestyleParams]):
    """The filter ``restyle``."""

    name = "restyle"
    info = FilterInfo(
        summary="Repaints the stream in a style, with a small diffusion model that is in the package.",
        quality_levels=len(_LEVELS),
        min_scale=1.0,
        needs=("torch", "safetensors"),
        install="pip install 'streamfx[restyle]'",
    )

    def setup(self, context: Context, params: RestyleParams) -> None:
        if min(context.size) < _LEAST:
            width, height = context.size
            raise UsageError(f"pictures of {width}x{height} are too small; at least {_LEAST} pixels a side are needed")
        picture = read_picture(params.style_image, "style_image") if params.style_image else None

        import torch

        from streamfx.models.devices import choose, multiplies_half
        from streamfx.models.tiny.load import networks
        from streamfx.models.tiny.stream import TinyStream

        torch.set_num_threads(context.threads)
        self._device, _ = choose(params.device, torch.float16)
        half = params.precision == "half" or (params.precision == "auto" and multiplies_half(self._device))
        self._dtype = torch.bfloat16 if half else torch.float32
        found = networks(self._device, self._dtype)
        self._dit = found.dit
        self._stream = TinyStream(found.autoencoder, found.dit)
        self._own = None if picture is None else self._style_of(picture)
        self._styles: dict[tuple[str, str, float], torch.Tensor] = {}
        self._sources: deque[tuple[float, NDArray[np.uint8], NDArray[Any]]] = deque(maxlen=2)
        self._steady = Steady()
        self._looked: tuple[Any, ...] = ()
        self._engines: EngineTakeover | None = None
        self._warm_up(context.size, params)
        if params.engine != "eager":
            self._engines = self._takeover(context, params)

    def process(self, block: Block, params: RestyleParams) -> Block:
        given = [
            self._drawn(frame, moment, params, block.quality)
            for frame, moment in zip(block.frames, block.pts, strict=True)
        ]
        shown = [one for one in given if one is not None]
        if not shown:
            return Block()
        return block.with_video(np.stack([picture for picture, _ in shown]), tuple(moment for _, moment in shown))

    def compile(self, context: Context, params: RestyleParams) -> None:
        import torch

        from streamfx.models.devices import choose

        device, _ = choose(params.device, torch.float16)
        check_engine(params.engine, device)
        if params.engine.endswith("int8") and not params.calibrate:
            raise UsageError(f"{params.engine} is scaled by real frames; name a clip with --set calibrate=clip.mp4")
        frames = _clip(params.calibrate) if params.calibrate else ()
        made_ahead(_order(context, params, device), context, frames)

    def close(self) -> None:
        if self._engines is not None:
            self._engines.close()

    def reset(self) -> None:
        self._stream.reset()
        self._sources.clear()
        self._steady.reset()

    def _drawn(
        self, frame: NDArray[np.uint8], moment: float, params: RestyleParams, level: int
    ) -> tuple[NDArray[np.uint8], float] | None:
        look, detail = self._look(params, level)
        size = drawing_size((frame.shape[1], frame.shape[0]), detail)
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._sources.append((moment, frame.copy(), small))
        if self._engines is None:
            found = self._stream.step(self._to_tensor(small), moment, look)
        else:
            with self._engines.frame(frame):
                found = self._stream.step(self._to_tensor(small), moment, look)
        if found is None:
            return None
        picture, label = found
        source, small = next((kept, shrunk) for when, kept, shrunk in self._sources if when == label)
        drawn = to_frames(picture[None])[0]
        if params.keep_colors:
            drawn = _recoloured(drawn, source, params.keep_colors)
        looked = params.style, params.other, params.blend, params.strength, params.keep_colors
        if looked != self._looked:
            self._steady.reset()
            self._looked = looked
        return grow(self._steady(drawn, small, SHARE * params.temporal), source), label

    def _takeover(self, context: Context, params: RestyleParams) -> EngineTakeover:
        """Raises ``UsageError`` for an engine that there is not."""
        from streamfx.engines.build import candidates
        from streamfx.engines.recipe import Recipe
        from streamfx.models.tiny.engines import takeover

        recipes = candidates(params.engine, Recipe("eager"), self._device)
        int8 = any(recipe.precision == "int8" for recipe in recipes)
        frames = _clip(params.calibrate) if params.calibrate else []
        wanted = _CALIBRATING if int8 and not frames else 0
        return takeover(self._stream, _order(context, params, self._device), context.tell, frames, wanted)

    def _look(self, params: RestyleParams, level: int) -> tuple[TinyLook, int]:
        """What the stream is to do at a quality level, and the side of what is drawn."""
        from streamfx.diffusion.guidance import Guidance
        from streamfx.models.tiny.stream import TinyLook

        steps, detail, side, every = _LEVELS[min(level, len(_LEVELS) - 1)]
        look = TinyLook(
            style=self._style(params),
            strength=params.strength,
            temporal=params.temporal,
            steps=min(steps, params.steps),
            guidance=Guidance(params.guidance, params.guidance_scale) if level < 2 else Guidance(),
            seed=params.seed,
            threshold=params.skip,
            side=round(side * params.side),
            every=every,
        )
        return look, round(detail * params.detail)

    def _style(self, params: RestyleParams) -> torch.Tensor:
        key = params.style, params.other, params.blend if params.other else 0.0
        if key not in self._styles:
            if len(self._styles) > 64:
                self._styles.clear()
            first = self._numbered(params.style) if self._own is None else self._own
            self._styles[key] = first.lerp(self._numbered(params.other), params.blend) if params.other else first
        return self._styles[key]

    def _numbered(self, name: str) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._dit.style(named=torch.tensor([BY_NAME[name].number], device=self._device))[0]

    def _style_of(self, picture: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        from streamfx.models.tiny.load import style_encoder
        from streamfx.models.tiny.style_encoder import fitted

        with torch.inference_mode():
            seen = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
            vector = style_encoder()(fitted(seen))
            return self._dit.style(vector=vector.to(self._device, self._dtype))[0]

    def _to_tensor(self, frame: NDArray[Any]) -> torch.Tensor:
        import torch

        return (torch.from_numpy(frame).to(self._device).permute(2, 0, 1).float() / 127.5 - 1).to(self._dtype)

    def _warm_up(self, size: tuple[int, int], params: RestyleParams) -> None:
        """The first call prepares kernels; a stream would wait for that."""
        blank = np.zeros((size[1], size[0], 3), np.uint8)
        self._drawn(blank, 0.0, params, 0)
        self.reset()


def _order(context: Context, params: RestyleParams, device: str) -> Order:
    """The engines for all levels of quality."""
    from streamfx.models.tiny.engines import order

    sizes = [
        (drawing_size(context.size, round(detail * params.detail)), round(side * params.side))
        for _, detail, side, _ in _LEVELS
    ]
    return order(sizes, params.steps, params.engine, context.threads, device)


def drawing_size(frame: tuple[int, int], detail: int) -> tuple[int, int]:
    """(width, height) to draw at: about the area of a square of ``detail`` in the shape of the frame, never larger than
    the frame but for what is missing to multiples of 8."""
    share = min(1.0, detail / math.sqrt(frame[0] * frame[1]))
    width, height = (max(_LEAST, round(share * length / _MULTIPLE) * _MULTIPLE) for length in frame)
    return width, height


def _recoloured(drawn: NDArray[Any], source: NDArray[Any], share: float) -> NDArray[np.uint8]:
    """The brightness of what is drawn, in the colours of the source."""
    small = cv2.resize(source, (drawn.shape[1], drawn.shape[0]), interpolation=cv2.INTER_AREA)
    ours, theirs = (cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb) for picture in (drawn, small))
    ours[..., 1:] = cv2.addWeighted(ours[..., 1:], 1 - share, theirs[..., 1:], share, 0)
    return np.asarray(cv2.cvtColor(ours, cv2.COLOR_YCrCb2RGB), np.uint8)


def _clip(path: str) -> list[NDArray[np.uint8]]:
    """The first frames of a clip, as RGB, every tenth. Raises ``UsageError``."""
    try:
        with av.open(path) as container:
            frames = islice(container.decode(video=0), 0, 10 * _CALIBRATING, 10)
            found = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
    except (OSError, IndexError, av.FFmpegError) as error:
        raise UsageError(f"calibrate {path} cannot be read as a video; give a clip that plays") from error
    if not found:
        raise UsageError(f"calibrate {path} has no pictures; give a clip that plays")
    return found
