"""Reads Stable Diffusion from a diffusers folder, or by its hub name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.sd.network import StableDiffusion, TextEmbedding

logger = logging.getLogger(__name__)

TINY_VAE = {"sd": "madebyollin/taesd", "sdxl": "madebyollin/taesdxl"}
"""The small autoencoders that go with both families; about 5 MB each."""


class TextEncoder:
    """The one or two CLIP encoders of a checkpoint, in memory of the CPU unless they are asked to be elsewhere."""

    def __init__(self, place: str, offline: bool, dtype: torch.dtype) -> None:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        self._parts: list[tuple[Any, Any]] = []
        kinds: list[tuple[str, str, Any]] = [("tokenizer", "text_encoder", CLIPTextModel)]
        if _has(place, "text_encoder_2", offline):
            kinds.append(("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection))
        for tokenizer, encoder, kind in kinds:
            with _explained(place, encoder):
                words = CLIPTokenizer.from_pretrained(place, subfolder=tokenizer, local_files_only=offline)
                model = kind.from_pretrained(place, subfolder=encoder, local_files_only=offline, dtype=dtype)
            self._parts.append((words, model.eval()))

    @torch.no_grad()
    def embed(self, prompt: str) -> TextEmbedding:
        """SD 1.5 takes the last layer of its encoder; SDXL the last but one of both, side by side, and the second's
        projection."""
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


def load(
    place: str,
    *,
    vae: str = "tiny",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> tuple[StableDiffusion, TextEncoder]:
    """``place``: a folder with ``model_index.json``, or a hub name as "stabilityai/sd-turbo". ``vae``: "tiny" (the
    small autoencoder), "full" (the checkpoint's own), or a folder or hub name. ``offline``: nothing is fetched.

    Raises ``UsageError``: what is missing or broken, and what to do.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    if Path(place).exists() and not (Path(place) / "model_index.json").is_file():
        raise UsageError(f"{place} is no diffusers folder: it has no model_index.json; give the folder that has")
    how: dict[str, Any] = {
        "local_files_only": offline,
        "torch_dtype": dtype,
        "use_safetensors": True,
        "low_cpu_mem_usage": False,
    }
    with _explained(place, "unet"):
        unet: Any = UNet2DConditionModel.from_pretrained(place, subfolder="unet", **how)
    wide = unet.config.addition_embed_type == "text_time"
    if vae == "full":
        with _explained(place, "vae"):
            autoencoder: Any = AutoencoderKL.from_pretrained(place, subfolder="vae", **how)
    else:
        source = TINY_VAE["sdxl" if wide else "sd"] if vae == "tiny" else vae
        with _explained(source, "the small autoencoder"):
            autoencoder = AutoencoderTiny.from_pretrained(source, **how)
    return StableDiffusion(unet, autoencoder, device, dtype), TextEncoder(place, offline, dtype)


def _has(place: str, part: str, offline: bool) -> bool:
    """Whether a checkpoint has a part, by its folder or its index."""
    if Path(place).exists():
        return (Path(place) / part).is_dir()
    from diffusers import DiffusionPipeline

    with _explained(place, "model_index.json"):
        return part in DiffusionPipeline.load_config(place, local_files_only=offline)


@contextlib.contextmanager
def _explained(place: str, part: str) -> Iterator[None]:
    """Turns what the libraries raise for a missing or broken checkpoint into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        logger.debug("place=%s part=%s", place, part, exc_info=True)
        if Path(place).exists():
            advice = "check that the folder is whole, or fetch the checkpoint again"
        else:
            advice = "check the name and the network, or give a folder with the checkpoint"
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(f"{place}: {part} cannot be loaded ({first}); {advice}") from error
