"""Causal Wan 2.1 in the stream: video to video and text to video (StreamDiffusionV2, arXiv 2511.07399)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from streamfx.filters import Block, Context, Filter, FilterInfo, Params, at_setup
from streamfx_plugins.pictures import network_size, parse_loras, to_frames, to_tensor

if TYPE_CHECKING:
    import torch

    from streamfx.models.causal_wan.dit import Prompt
    from streamfx.models.causal_wan.vae import VideoVae
    from streamfx.models.causal_wan.video import VideoLook, WanVideo

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

        from streamfx.models.causal_wan.load import load_generator
        from streamfx.models.causal_wan.lora import fuse
        from streamfx.models.causal_wan.text import load_text
        from streamfx.models.causal_wan.video import Memory, WanVideo
        from streamfx.models.devices import choose
        from streamfx.models.registry import resolve

        torch.set_num_threads(context.threads)
        self._device, self._dtype = choose(params.device, torch.bfloat16)
        self._size = network_size(context.size, params.side, _MULTIPLE)
        self._model = load_generator(resolve(params.model), device=self._device, dtype=self._dtype)
        for place, weight in parse_loras(params.loras):
            fuse(self._model, resolve(place), weight)
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
            _vae(params, self._device, self._dtype),
            self._embedded(params.prompt),
            memory=Memory(params.policy, params.sinks, params.window, params.storage),
            joint=params.joint,
            negative=negative,
            seed=params.seed,
        )
        self._prompt = params.prompt
        self._asked: tuple[str, Future[Prompt]] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._warm_up(params)

    def process(self, block: Block, params: WanParams) -> Block:
        self._follow(params.prompt)
        look = _look(params, block.quality)
        pictures = to_tensor(block.frames, self._size, self._device, self._dtype)
        shown, labels = self._stream.step(pictures, list(block.pts), look)
        return block.with_video(to_frames(shown), tuple(labels)) if labels else Block()

    def reset(self) -> None:
        self._stream.reset()

    def close(self) -> None:
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


def _look(params: WanParams, level: int) -> VideoLook:
    """Half the steps at ``level`` 1, a single one at 2."""
    from streamfx.diffusion.guidance import Guidance
    from streamfx.models.causal_wan.video import VideoLook

    steps = (params.steps, (params.steps + 1) // 2, 1)[min(level, 2)]
    guidance = Guidance(params.guidance, params.guidance_scale, params.delta)
    return VideoLook(params.strength, params.calm, steps, params.shift, guidance, params.cuts)


def _vae(params: WanParams, device: str, dtype: torch.dtype) -> VideoVae:
    from streamfx.models.causal_wan.vae import StreamingWanVae, load_light_vae
    from streamfx.models.explained import explained
    from streamfx.models.registry import resolve

    place = resolve({"light": "taew2.1", "full": params.text}.get(params.vae, params.vae))
    if Path(place).suffix in {".pth", ".safetensors"}:
        return load_light_vae(place, steady=True, device=device, dtype=dtype)
    from diffusers import AutoencoderKLWan

    with explained(place, "vae"):
        network: Any = AutoencoderKLWan.from_pretrained(
            place, subfolder="vae", local_files_only=params.offline, torch_dtype=dtype
        )
    return StreamingWanVae(network.to(device), steady=True)
