"""Checkpoints that are known by name: what they are, what they need, and where they come from and lie.

Nothing of torch is needed for it.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamfx.core.errors import UsageError

Family = Literal["image", "video", "autoencoder", "add-on"]

SEE_PAGE = "see its page"
"""Where a licence could not be confirmed, or is one of its own."""

_STABILITY = "for commercial use its makers refer to https://stability.ai/license"
_CODE_SINCE = "so its page says; the code it belongs to has become Apache-2.0 since, its page may follow"

_COMPLETE = ".complete"
_DIFFUSERS = ("model_index.json", "*/config.json", "*/*.json", "*/*.txt", "*/*.model")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """``place``: its hub name. ``files``: patterns of what is fetched of it. ``entry``: the file in its folder that is
    loaded; empty for a folder as a whole. ``gigabytes``: to be fetched, about. ``vram``: gigabytes of GPU memory that
    it takes at work, in half precision, about. ``licence``: an SPDX name, or words. ``needs``: others it does not run
    without. ``gated``: it is given only to those who agree to its terms. ``note``: what is to be known of its
    licence or its files."""

    name: str
    summary: str
    family: Family
    place: str
    files: tuple[str, ...]
    gigabytes: float
    vram: float
    licence: str
    entry: str = ""
    needs: tuple[str, ...] = ()
    gated: bool = False
    note: str = ""

    @property
    def pickled(self) -> bool:
        """Whether its weights are published as pickles alone. They are read as plain tensors, and run nothing."""
        return not any(pattern.endswith(".safetensors") for pattern in self.files)

    @property
    def page(self) -> str:
        """What it is, in its makers' words."""
        return f"https://huggingface.co/{self.place}"


def _halves(*folders: str) -> tuple[str, ...]:
    """Half-precision weights of these parts of a diffusers folder."""
    return (*_DIFFUSERS, *(f"{folder}/*.fp16.safetensors" for folder in folders))


_WAN_PARTS = (*_DIFFUSERS, "text_encoder/*.safetensors", "vae/*.safetensors", "tokenizer/*")

MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        "sd-turbo", "Stable Diffusion 2.1 distilled to a single step, 512x512", "image", "stabilityai/sd-turbo",
        _halves("unet", "text_encoder"), 2.4, 4, SEE_PAGE, needs=("taesd",), note=_STABILITY,
    ),
    KnownModel(
        "sd-1.5", "Stable Diffusion 1.5; with lcm-lora-sd-1.5 in few steps", "image",
        "stable-diffusion-v1-5/stable-diffusion-v1-5", _halves("unet", "text_encoder"), 2.0, 4,
        "CreativeML OpenRAIL-M", needs=("taesd",),
    ),
    KnownModel(
        "sdxl-turbo", "Stable Diffusion XL distilled to a single step", "image", "stabilityai/sdxl-turbo",
        _halves("unet", "text_encoder", "text_encoder_2"), 6.8, 9, SEE_PAGE, needs=("taesdxl",),
        note=f"tagged sai-nc-community, which is not commercial; {_STABILITY}",
    ),
    KnownModel(
        "lcm-lora-sd-1.5", "makes sd-1.5 a latent consistency model of 2 to 4 steps", "add-on",
        "latent-consistency/lcm-lora-sdv1-5", ("pytorch_lora_weights.safetensors",), 0.14, 0, "CreativeML OpenRAIL++-M",
        "pytorch_lora_weights.safetensors", needs=("sd-1.5",),
    ),
    KnownModel(
        "controlnet-canny", "contours of the source steer sd-1.5", "add-on", "lllyasviel/control_v11p_sd15_canny",
        ("config.json", "diffusion_pytorch_model.fp16.safetensors"), 0.72, 1, "CreativeML OpenRAIL-M",
        needs=("sd-1.5",),
    ),
    KnownModel(
        "controlnet-depth", "depths of the source steer sd-1.5", "add-on", "lllyasviel/control_v11f1p_sd15_depth",
        ("config.json", "diffusion_pytorch_model.fp16.safetensors"), 0.72, 1, "CreativeML OpenRAIL-M",
        needs=("sd-1.5", "depth-anything-small"),
    ),
    KnownModel(
        "depth-anything-small", "sees depths, for controlnet-depth", "add-on", "LiheYoung/depth-anything-small-hf",
        ("config.json", "preprocessor_config.json", "model.safetensors"), 0.1, 0.5, "Apache-2.0",
    ),
    KnownModel(
        "taesd", "small autoencoder of Stable Diffusion 1 and 2", "autoencoder", "madebyollin/taesd",
        ("config.json", "diffusion_pytorch_model.safetensors"), 0.01, 0.5, "MIT",
    ),
    KnownModel(
        "taesdxl", "small autoencoder of Stable Diffusion XL", "autoencoder", "madebyollin/taesdxl",
        ("config.json", "diffusion_pytorch_model.safetensors"), 0.01, 0.5, "MIT",
    ),
    KnownModel(
        "wan-2.1-1.3b", "text encoder (UMT5-XXL) and autoencoder of Wan 2.1, for all generators", "video",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", _WAN_PARTS, 23.2, 2, "Apache-2.0",
    ),
    KnownModel(
        "self-forcing", "causal Wan 1.3B in 4 steps, from text", "video", "gdhe17/Self-Forcing",
        ("checkpoints/self_forcing_dmd.pt",), 5.7, 16, "CC-BY-NC-SA-4.0", "checkpoints/self_forcing_dmd.pt",
        needs=("wan-2.1-1.3b", "taew2.1"), note=_CODE_SINCE,
    ),
    KnownModel(
        "causvid", "causal Wan 1.3B in few steps, the first of its kind", "video", "tianweiy/CausVid",
        ("autoregressive_checkpoint/model.pt",), 5.7, 16, "CC-BY-NC-SA-4.0", "autoregressive_checkpoint/model.pt",
        needs=("wan-2.1-1.3b", "taew2.1"),
    ),
    KnownModel(
        "streamdiffusion-v2", "causal Wan 1.3B in few steps, made for video to video", "video",
        "jerryfeng/StreamDiffusionV2", ("wan_causal_dmd_v2v/model.pt",), 5.7, 16, "Apache-2.0",
        "wan_causal_dmd_v2v/model.pt", needs=("wan-2.1-1.3b", "taew2.1"),
    ),
    KnownModel(
        "streamdiffusion-v2-14b", "the same of 14B", "video", "jerryfeng/StreamDiffusionV2",
        ("wan_causal_dmd_v2v_14b/*",), 28.6, 64, "Apache-2.0", "wan_causal_dmd_v2v_14b",
        needs=("wan-2.1-1.3b", "taew2.1"),
    ),
    KnownModel(
        "longlive", "causal Wan 1.3B for minutes and changing prompts; wants longlive-lora fused", "video",
        "Efficient-Large-Model/LongLive-1.3B", ("models/longlive_base.pt",), 5.7, 16,
        "CC-BY-NC-SA-4.0", "models/longlive_base.pt", needs=("wan-2.1-1.3b", "taew2.1", "longlive-lora"),
        note=_CODE_SINCE,
    ),
    KnownModel(
        "longlive-lora", "the second half of longlive", "add-on", "Efficient-Large-Model/LongLive-1.3B",
        ("models/lora.pt",), 1.5, 0, "CC-BY-NC-SA-4.0", "models/lora.pt", needs=("longlive",),
        note=_CODE_SINCE,
    ),
    KnownModel(
        "krea-realtime", "causal Wan 14B in 4 steps, from text", "video", "krea/krea-realtime-video",
        ("krea-realtime-video-14b.safetensors",), 28.6, 64, SEE_PAGE, "krea-realtime-video-14b.safetensors",
        needs=("wan-2.1-1.3b", "taew2.1"), note="a copy of it on the hub, aiqwen/krea-realtime-video, says Apache-2.0",
    ),
    KnownModel(
        "taew2.1", "small autoencoder of Wan 2.1 (TAEHV, a mirror of the makers' file)", "autoencoder",
        "OzzyGT/taew2_1", ("taew2_1.safetensors",), 0.023, 1, "MIT", "taew2_1.safetensors",
        note="its makers publish it at https://github.com/madebyollin/taehv alone, which is no hub",
    ),
)  # fmt: skip


def find(name: str) -> KnownModel:
    """Raises ``UsageError`` naming the nearest."""
    for model in MODELS:
        if model.name == name:
            return model
    near = difflib.get_close_matches(name, [model.name for model in MODELS], 1)
    hint = f"did you mean {near[0]!r}?" if near else "`streamfx models` lists them"
    raise UsageError(f"there is no model {name!r}; {hint}")


def models_folder() -> Path:
    """Where pulled models lie: ``$STREAMFX_MODELS``, or ``streamfx/models`` in the user's cache folder."""
    chosen = os.environ.get("STREAMFX_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "streamfx" / "models"


def folder_of(model: KnownModel) -> Path:
    """Where a model lies once it is pulled."""
    return models_folder() / model.name


def is_here(model: KnownModel) -> bool:
    """Whether it was pulled whole."""
    return (folder_of(model) / _COMPLETE).is_file()


def mark_complete(folder: Path) -> None:
    """All of a model is in ``folder``."""
    (folder / _COMPLETE).touch()


def resolve(place: str) -> str:
    """What a loader is to be given for ``place``: for a known name the folder or file of the pulled model, or its hub
    name if it is not here; anything else (a path, a hub name) as it is. Raises ``UsageError`` for a known model that is
    loaded from a file, and is not here."""
    model = next((one for one in MODELS if one.name == place), None)
    if model is None:
        return place
    if is_here(model):
        return str(folder_of(model) / model.entry)
    if model.entry:
        raise UsageError(f"model {place!r} is not here; fetch it with: streamfx models pull {place}")
    return model.place
