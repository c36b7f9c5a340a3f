"""Causal Wan 2.1 in the stream: video to video and text to video (StreamDiffusionV2, arXiv 2511.07399)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
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
    from streamfx.models.causal_wan.dit import Prompt
    from streamfx.models.causal_wan.engines import Checkpoint
    from streamfx.models.causal_wan.video import Memory, VideoLook, WanVideo

_CHUNK = 4
_MULTIPLE = 16
"""Pixels: the autoencoder shrinks by 8, the transformer takes patches of 2."""


class WanParams(Params):
    """What to draw, how far from the source, and with which checkpoints."""

    prompt: str = Field("a watercolor painting", max_length=1000, title="Prompt", description="what it is to look like")
    strength: float = Field(
        0.8, ge=0.05, le=1, title="Strength", description="how far it goes from the source; 1: text to video"
    )
    calm: float = Field(0.2, ge=0, le=1, title="Calm in motion", description="how much fast motion lowers the strength")
    steps: int = Field(
        4, ge=1, le=4, title="Steps", description="of denoising; each but the first is four frames of delay"
    )
    shift: float = Field(5.0, ge=1, le=12, title="Shift", description="of the schedule, towards noise")
    guidance: Literal["none", "self", "onetime", "full"] = Field(
        "none", title="Guidance", description="how the prompt is stressed; distilled checkpoints need none"
    )
    guidance_scale: float = Field(1.2, ge=1, le=10, title="Guidance scale", description="how strongly")
    delta: float = Field(1.0, ge=0, le=1, title="Delta", description="weight of the residual; less means more style")
    cuts: bool = Field(True, title="See cuts", description="whether the past is forgotten where the scene changes")

    model: str = at_setup("self-forcing", "the generator: a name of `streamfx models`, a file, or a folder")
    loras: str = at_setup("", "LoRAs to fuse: PLACE or PLACE=WEIGHT, separated by commas; longlive wants longlive-lora")
    text: str = at_setup("wan-2.1-1.3b", "where the text encoder is: a name of `streamfx models`, a folder, a hub name")
    vae: str = at_setup("light", "light (fast), full (Wan's own, from where the text encoder is), or a place of either")
    negative: str = at_setup("", "what it is not to look like, with full and onetime guidance", max_length=1000)
    joint: bool = at_setup(False, "the frames of the window are denoised together (Rolling Forcing)")
    policy: Literal["rolling", "sink", "adaptive", "ema", "tempcache"] = at_setup("sink", "which past is kept")
    sinks: int = at_setup(3, "latent frames kept for good", ge=1, le=16)
    window: int = at_setup(3, "latent frames that pass by", ge=1, le=32)
    storage: Literal["same", "int8", "fp8"] = at_setup("same", "how keys and values are stored")
    side: int = at_setup(632, "pixels: the network's picture has the area of a square of this side", ge=64, le=2048)
    seed: int = at_setup(0, "of the noise", ge=0, le=2**31 - 1)
    resident_text: bool = at_setup(False, "the text encoder (11 GB) stays on the device between prompts")
    device: str = at_setup("auto", "auto, cpu, cuda or cuda:N")
    engine: str = at_setup("eager", f"{ENGINE}; not with joint denoising")
    offline: bool = at_setup(False, "nothing is fetched from the network")


class Wan(Filter[WanParams]):
    """The filter ``wan``. A new prompt is embedded in a thread of its own, and comes in when it is ready."""

    name = "wan"
    info = FilterInfo(
        summary="Repaints the stream to a prompt with causal Wan 2.1, steady over time (wants a large GPU).",
        block=_CHUNK,
        quality_levels=3,
        min_scale=1.0,
        needs=("torch", "diffusers", "transformers"),
        install="pip install 'streamfx[models]'",
    )

    def setup(self, context: Context, params: WanParams) -> None:
        import torch

        from streamfx.models.causal_wan.engines import takeover
        from streamfx.models.causal_wan.text import load_text
        from streamfx.models.causal_wan.vae import load_vae
        from streamfx.models.causal_wan.video import WanVideo
        from streamfx.models.devices import choose
        from streamfx.models.registry import resolve

        torch.set_num_threads(context.threads)
        self._device, self._dtype = choose(params.device, torch.bfloat16)
        if params.engine != "eager":
            _check(params)
        self._size = network_size(context.size, params.side, _MULTIPLE)
        checkpoint = _checkpoint(params)
        self._model = checkpoint.loaded()
        self._text = load_text(
            resolve(params.text),
            device=self._device,
            dtype=self._dtype,
            resident=params.resident_text,
            offline=params.offline,
        )
        negative = None
        if params.guidance in {"full", "onetime"} or params.negative:
            negative = self._embedded(params.negative)
        self._stream: WanVideo = WanVideo(
            self._model,
            load_vae(_vae_place(params), device=self._device, dtype=self._dtype, offline=params.offline),
            self._embedded(params.prompt),
            memory=_memory(params),
            joint=params.joint,
            negative=negative,
            seed=params.seed,
        )
        self._prompt = params.prompt
        self._asked: tuple[str, Future[Prompt]] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._warm_up(params)
        self._engines: EngineTakeover | None = None
        if params.engine != "eager":
            wanted = _order(context, params, checkpoint)
            self._engines = takeover(self._stream, self._model, checkpoint, wanted, context.tell)

    def process(self, block: Block, params: WanParams) -> Block:
        self._follow(params.prompt)
        look = _look(params, block.quality)
        pictures = to_tensor(block.frames, self._size, self._device, self._dtype)
        with nullcontext() if self._engines is None else self._engines.frame():
            shown, labels = self._stream.step(pictures, list(block.pts), look)
        return block.with_video(to_frames(shown), tuple(labels)) if labels else Block()

    def compile(self, context: Context, params: WanParams) -> None:
        _check(params)
        made_ahead(_order(context, params, _checkpoint(params)), context)

    def reset(self) -> None:
        self._stream.reset()

    def close(self) -> None:
        if self._engines is not None:
            self._engines.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _embedded(self, prompt: str) -> Prompt:
        import torch

        with torch.no_grad():
            return self._model.prepare(self._text.embed(prompt))

    def _follow(self, prompt: str) -> None:
        """Sets out for another prompt, or takes it if it is there. The encoder takes longer than a frame may."""
        if self._asked is not None and self._asked[1].done():
            text, future = self._asked
            self._asked = None
            self._prompt = text
            self._stream.set_prompt(future.result())
        if self._asked is None and prompt != self._prompt:
            self._asked = prompt, self._threads.submit(self._embedded, prompt)

    def _warm_up(self, params: WanParams) -> None:
        """The first calls on a GPU choose their kernels; a stream would wait for that."""
        import torch

        blank = torch.zeros(_CHUNK, 3, self._size[1], self._size[0], device=self._device, dtype=self._dtype)
        for _ in range(params.steps):
            self._stream.step(blank, [0.0] * _CHUNK, _look(params, 0))
        self._stream.reset()


def _steps(params: WanParams, level: int) -> int:
    """Half of them at ``level`` 1, a single one at 2."""
    return (params.steps, (params.steps + 1) // 2, 1)[min(level, 2)]


def _look(params: WanParams, level: int) -> VideoLook:
    from streamfx.diffusion.guidance import Guidance
    from streamfx.models.causal_wan.video import VideoLook

    guidance = Guidance(params.guidance, params.guidance_scale, params.delta)
    return VideoLook(params.strength, params.calm, _steps(params, level), params.shift, guidance, params.cuts)


def _check(params: WanParams) -> None:
    """Raises ``UsageError`` for an engine that there is not."""
    import torch

    from streamfx.models.devices import choose

    check_engine(params.engine, choose(params.device, torch.bfloat16)[0])
    if params.joint:
        raise UsageError(f"engine {params.engine} does not denoise frames jointly; choose eager, or joint false")
    if params.engine.endswith("int8"):
        raise UsageError(f"{params.engine} is for restyle; with wan take the same without int8, or auto")


def _checkpoint(params: WanParams) -> Checkpoint:
    """Raises ``UsageError`` for a place or a device that there is not."""
    import torch

    from streamfx.models.causal_wan.engines import Checkpoint
    from streamfx.models.devices import choose
    from streamfx.models.registry import resolve

    device, dtype = choose(params.device, torch.bfloat16)
    loras = [(resolve(place), weight) for place, weight in parse_loras(params.loras)]
    return Checkpoint(resolve(params.model), loras, device, str(dtype).removeprefix("torch."))


def _vae_place(params: WanParams) -> str:
    from streamfx.models.registry import resolve

    return resolve({"light": "taew2.1", "full": params.text}.get(params.vae, params.vae))


def _memory(params: WanParams) -> Memory:
    from streamfx.models.causal_wan.video import Memory

    return Memory(params.policy, params.sinks, params.window, params.storage)


def _order(context: Context, params: WanParams, checkpoint: Checkpoint) -> Order:
    """The engine for all levels of quality."""
    from streamfx.models.causal_wan.engines import order

    size = network_size(context.size, params.side, _MULTIPLE)
    steps = [_steps(params, level) for level in range(Wan.info.quality_levels)]
    return order(
        checkpoint,
        _vae_place(params),
        _memory(params),
        size,
        steps,
        params.guidance,
        params.engine,
        context.threads,
        params.offline,
    )
