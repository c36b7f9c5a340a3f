"""Reads Stable Diffusion from a diffusers folder, or by its hub name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.explained import explained
from streamfx.models.registry import resolve
from streamfx.models.sd.network import StableDiffusion, TextEmbedding

_MOST_PROMPTS = 64


class TextEncoder:
    """The one or two CLIP encoders of a checkpoint. Between prompts they lie in the CPU's memory, unless ``resident``,
    and what a prompt gave is kept."""

    def __init__(self, parts: Sequence[tuple[Any, Any]], device: torch.device | str, resident: bool = False) -> None:
        """``parts``: pairs of a tokenizer and its encoder."""
        self._parts = list(parts)
        self._device = torch.device(device)
        self._resident = resident
        self._known: dict[str, TextEmbedding] = {}
        if resident:
            self._move(self._device)

    @torch.no_grad()
    def embed(self, prompt: str) -> TextEmbedding:
        """SD 1.5 takes the last layer of its encoder; SDXL the last but one of both, side by side, and the second's
        projection."""
        if prompt not in self._known:
            with self._at_hand():
                embedding = self._embed(prompt)
            while len(self._known) >= _MOST_PROMPTS:
                del self._known[next(iter(self._known))]
            self._known[prompt] = embedding
        return self._known[prompt]

    def _embed(self, prompt: str) -> TextEmbedding:
        wide = len(self._parts) == 2
        layers: list[Tensor] = []
        pooled: Tensor | None = None
        for tokenizer, encoder in self._parts:
            length = tokenizer.model_max_length
            words = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            answer = encoder(words.input_ids.to(encoder.device), output_hidden_states=wide)
            layers.append(answer.hidden_states[-2][0] if wide else answer.last_hidden_state[0])
            pooled = answer.text_embeds[0] if wide and hasattr(answer, "text_embeds") else pooled
        return TextEmbedding(torch.cat(layers, dim=-1), pooled)

    @contextlib.contextmanager
    def _at_hand(self) -> Iterator[None]:
        if self._resident:
            yield
            return
        self._move(self._device)
        try:
            yield
        finally:
            self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for _, encoder in self._parts:
            encoder.to(device)


def load(
    place: str,
    *,
    vae: str = "tiny",
    loras: Sequence[tuple[str, float]] = (),
    control: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    resident_text: bool = False,
    offline: bool = False,
) -> tuple[StableDiffusion, TextEncoder]:
    """``place``: a folder with ``model_index.json``, or a hub name as "stabilityai/sd-turbo". ``vae``: "tiny" (the
    small autoencoder), "full" (the checkpoint's own), or a folder or hub name. ``loras``: files, folders or hub names
    with their weights, which are fused for good. ``control``: a ControlNet's folder or hub name. ``resident_text``: the
    text encoder stays on the device. ``offline``: nothing is fetched.

    Raises ``UsageError``: what is missing or broken, and what to do.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel

    if Path(place).exists() and not (Path(place) / "model_index.json").is_file():
        raise UsageError(f"{place} is no diffusers folder: it has no model_index.json; give the folder that has")
    how: dict[str, Any] = {
        "local_files_only": offline,
        "torch_dtype": dtype,
        "use_safetensors": True,
        "low_cpu_mem_usage": False,
    }
    with explained(place, "unet"):
        unet: Any = UNet2DConditionModel.from_pretrained(place, subfolder="unet", **how, **_variant(place, "unet"))
    wide = unet.config.addition_embed_type == "text_time"
    if vae == "full":
        with explained(place, "vae"):
            autoencoder: Any = AutoencoderKL.from_pretrained(place, subfolder="vae", **how)
    else:
        source = resolve("taesdxl" if wide else "taesd") if vae == "tiny" else vae
        with explained(source, "the small autoencoder"):
            autoencoder = AutoencoderTiny.from_pretrained(source, **how)
    network: Any = None
    if control is not None:
        with explained(control, "the ControlNet"):
            network = ControlNetModel.from_pretrained(control, **how, **_variant(control, ""))
    parts = _text_parts(place, offline, dtype)
    for lora, weight in loras:
        _fuse(unet, parts, lora, weight, offline)
    return StableDiffusion(unet, autoencoder, device, dtype, network), TextEncoder(parts, device, resident_text)


def _text_parts(place: str, offline: bool, dtype: torch.dtype) -> list[tuple[Any, Any]]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kinds: list[tuple[str, str, Any]] = [("tokenizer", "text_encoder", CLIPTextModel)]
    if _has(place, "text_encoder_2", offline):
        kinds.append(("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection))
    parts = []
    for tokenizer, encoder, kind in kinds:
        with explained(place, encoder):
            words = CLIPTokenizer.from_pretrained(place, subfolder=tokenizer, local_files_only=offline)
            more = _variant(place, encoder)
            model = kind.from_pretrained(place, subfolder=encoder, local_files_only=offline, dtype=dtype, **more)
        parts.append((words, model.eval()))
    return parts


def _fuse(unet: Any, parts: Sequence[tuple[Any, Any]], place: str, weight: float, offline: bool) -> None:
    """Adds a LoRA to the weights of the UNet and of the text encoders. diffusers knows the namings there are, and wants
    a pipeline around the networks for it."""
    from diffusers import LCMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    given: dict[str, Any] = {"vae": None, "unet": unet, "scheduler": LCMScheduler(steps_offset=1)}
    for suffix, (tokenizer, encoder) in zip(("", "_2"), parts, strict=False):
        given |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": encoder}
    with explained(place, "the LoRA"):
        if len(parts) == 2:
            pipeline: Any = StableDiffusionXLPipeline(**given)
        else:
            more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipeline = StableDiffusionPipeline(**given, **more)
        pipeline.load_lora_weights(place, local_files_only=offline, use_safetensors=True)
        if not pipeline.get_active_adapters():
            raise ValueError("it has no weights for this model")
        pipeline.fuse_lora(lora_scale=weight)
        pipeline.unload_lora_weights()


def _variant(place: str, part: str) -> dict[str, str]:
    """Of a folder that has half-precision weights alone, those are taken."""
    files = [file.name for file in (Path(place) / part).glob("*.safetensors")]
    return {"variant": "fp16"} if files and all(".fp16." in file for file in files) else {}


def _has(place: str, part: str, offline: bool) -> bool:
    """Whether a checkpoint has a part, by its folder or its index."""
    if Path(place).exists():
        return (Path(place) / part).is_dir()
    from diffusers import DiffusionPipeline

    with explained(place, "model_index.json"):
        return part in DiffusionPipeline.load_config(place, local_files_only=offline)
