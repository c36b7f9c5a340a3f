"""Stable Diffusion in the stream: SD 1.5, SD-Turbo, SDXL-Turbo, image to image (StreamDiffusion, arXiv 2312.12491)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from streamfx.core.errors import UsageError
from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup
from streamfx_plugins.ahead import ENGINE, check_engine, made_ahead
from streamfx_plugins.pictures import network_size, parse_loras, to_frames, to_tensor

if TYPE_CHECKING:
    from streamfx.engines.build import Order
    from streamfx.engines.takeover import EngineTakeover
    from streamfx.models.sd.engines import Checkpoint
    from streamfx.models.sd.stream import Look, SdStream

_MULTIPLE = 64
"""Pixels: the autoencoder shrinks by 8, the UNet by 8 again."""


class SdParams(Params):
    """What to draw, how far from the source, and with which checkpoint."""

    prompt: str = Field("a watercolor painting", max_length=500, title="Prompt", description="what it is to look like")
    other: str = Field("", max_length=500, title="Other prompt", description="a second prompt to blend in")
    blend: float = Field(0.0, ge=0, le=1, title="Blend", description="0: only the prompt, 1: only the other one")
    negative: str = Field(
        "", max_length=500, title="Negative prompt", description="what it is not to look like, with full guidance"
    )
    strength: float = Field(
        0.5, ge=0.02, le=1, title="Strength", description="how far it goes from the source; 1 keeps nothing of it"
    )
    calm: float = Field(0.0, ge=0, le=1, title="Calm in motion", description="how much fast motion lowers the strength")
    steps: int = Field(2, ge=1, le=4, title="Steps", description="of denoising; each but the first is a frame of delay")
    guidance: Literal["none", "self", "onetime", "full"] = Field(
        "self", title="Guidance", description="how the prompt is stressed: not, by the residual, or by a second pass"
    )
    guidance_scale: float = Field(1.2, ge=1, le=10, title="Guidance scale", description="how strongly")
    delta: float = Field(1.0, ge=0, le=1, title="Delta", description="weight of the residual; less means more style")
    seed: int = Field(0, ge=0, le=2**31 - 1, title="Seed", description="of the noise")
    skip: float = Field(
        1.0, ge=0.9, le=1, title="Skip alike", description="frames more alike than this may be skipped; 1 skips none"
    )
    control_scale: float = Field(0.8, ge=0, le=2, title="ControlNet", description="weight of the contours or depths")

    model: str = at_setup("sd-turbo", "a name of `streamfx models`, a diffusers folder, or a hub name")
    vae: str = at_setup("tiny", "tiny (the small autoencoder), full (the checkpoint's own), a folder, or a hub name")
    loras: str = at_setup("", "LoRAs to fuse: PLACE or PLACE=WEIGHT, separated by commas")
    control: Literal["none", "canny", "depth"] = at_setup("none", "what a ControlNet goes by")
    control_model: str = at_setup("", "the ControlNet's folder or hub name; by default that for SD 1.5")
    depth_model: str = at_setup("depth-anything-small", "the network that sees depths")
    side: int = at_setup(512, "pixels: the network's picture has the area of a square of this side", ge=64, le=2048)
    device: str = at_setup("auto", "auto, cpu, cuda or cuda:N")
    engine: str = at_setup("eager", f"{ENGINE}; not with a ControlNet")
    offline: bool = at_setup(False, "nothing is fetched from the network")


class Sd(Filter[SdParams]):
    """The filter ``sd``."""

    name = "sd"
    info = FilterInfo(
        summary="Repaints the stream to a prompt with Stable Diffusion (SD-Turbo, SD 1.5, SDXL-Turbo; wants a GPU).",
        blocks=(1, 2, 4),
        quality_levels=3,
        min_scale=1.0,
        needs=("torch", "diffusers", "transformers"),
        install="pip install 'streamfx[models]'",
    )

    def setup(self, context: Context, params: SdParams) -> None:
        import torch

        from streamfx.models.devices import choose
        from streamfx.models.registry import resolve
        from streamfx.models.sd.control import Canny, Depth
        from streamfx.models.sd.engines import takeover
        from streamfx.models.sd.stream import SdStream, quicker

        torch.set_num_threads(context.threads)
        self._device, self._dtype = choose(params.device, torch.float16)
        if params.engine != "eager":
            _check(params)
        self._size = network_size(context.size, params.side, _MULTIPLE)
        self._quicker = quicker
        hint: Canny | Depth | None = None
        control = None
        if params.control != "none":
            control = resolve(params.control_model or f"controlnet-{params.control}")
            if params.control == "canny":
                hint = Canny()
            else:
                hint = Depth(resolve(params.depth_model), self._device, self._dtype, params.offline)
        checkpoint = _checkpoint(params)
        self._stream: SdStream = SdStream(*checkpoint.loaded(control), hint)
        self._warm_up(params)
        self._engines: EngineTakeover | None = None
        if params.engine != "eager":
            self._engines = takeover(self._stream, checkpoint, _order(context, params, checkpoint), context.tell)

    def process(self, block: Block, params: SdParams) -> Block:
        pictures = to_tensor(block.frames, self._size, self._device, self._dtype)
        look = self._quicker(_look(params), block.quality)
        with nullcontext() if self._engines is None else self._engines.frame():
            given = self._stream.step(pictures, list(block.pts), look)
        return Block() if given is None else block.with_video(to_frames(given[0]), tuple(given[1]))

    def compile(self, context: Context, params: SdParams) -> None:
        _check(params)
        made_ahead(_order(context, params, _checkpoint(params)), context)

    def close(self) -> None:
        if self._engines is not None:
            self._engines.close()

    def reset(self) -> None:
        self._stream.reset()

    def _warm_up(self, params: SdParams) -> None:
        """The first call on a GPU chooses its kernels; a stream would wait for that."""
        import torch

        blank = torch.zeros(1, 3, self._size[1], self._size[0], device=self._device, dtype=self._dtype)
        self._stream.step(blank, [0.0], _look(params))
        self._stream.reset()


def _check(params: SdParams) -> None:
    """Raises ``UsageError`` for an engine that there is not."""
    import torch

    from streamfx.models.devices import choose

    check_engine(params.engine, choose(params.device, torch.float16)[0])
    if params.control != "none":
        raise UsageError(f"engine {params.engine} does not take what a ControlNet adds; choose eager, or control none")
    if params.engine.endswith("int8"):
        raise UsageError(f"{params.engine} is for restyle; with sd take the same without int8, or auto")


def _checkpoint(params: SdParams) -> Checkpoint:
    """Raises ``UsageError`` for a place or a device that there is not."""
    import torch

    from streamfx.models.devices import choose
    from streamfx.models.registry import resolve
    from streamfx.models.sd.engines import Checkpoint

    device, dtype = choose(params.device, torch.float16)
    return Checkpoint(
        place=resolve(params.model),
        vae=params.vae if params.vae in {"tiny", "full"} else resolve(params.vae),
        loras=[(resolve(place), weight) for place, weight in parse_loras(params.loras)],
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        offline=params.offline,
    )


def _order(context: Context, params: SdParams, checkpoint: Checkpoint) -> Order:
    """The engines for all levels of quality."""
    from streamfx.models.sd.engines import order

    size = network_size(context.size, params.side, _MULTIPLE)
    return order(checkpoint, size, Sd.info.blocks, params.steps, params.guidance, params.engine, context.threads)


def _look(params: SdParams) -> Look:
    from streamfx.diffusion.guidance import Guidance
    from streamfx.models.sd.stream import Look

    return Look(
        prompt=params.prompt,
        other=params.other,
        share=params.blend,
        negative=params.negative,
        strength=params.strength,
        calm=params.calm,
        steps=params.steps,
        guidance=Guidance(params.guidance, params.guidance_scale, params.delta),
        seed=params.seed,
        threshold=params.skip,
        control=params.control_scale,
    )
