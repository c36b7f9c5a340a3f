"""Fuses LoRAs (arXiv 2106.09685) into a Wan generator: LongLive's second half, and what others have trained."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.dit import CausalWan
from streamfx.models.causal_wan.keys import renamed, unwrap
from streamfx.models.causal_wan.load import read_weights

_PART = re.compile(r"^(?P<layer>.+)\.(?:lora_(?P<half>A|B|down|up)(?:\.default)?\.weight|(?P<alpha>alpha))$")
_HALF = {"A": "down", "B": "up", "down": "down", "up": "up"}


@torch.no_grad()
def fuse(model: CausalWan, place: str, weight: float = 1.0) -> None:
    """Adds ``weight alpha / rank up down`` to each layer the LoRA at ``place`` has: a ``.safetensors``, ``.pt`` or a
    folder with one. Names are PEFT's (with or without ``base_model.model.``), diffusers' or kohya's; without an alpha
    it is the rank. Raises ``UsageError``, changing nothing, if it is none, or of another model."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in unwrap(read_weights(place)).items():
        found = _PART.match(name)
        if found:
            half = "alpha" if found["alpha"] else _HALF[found["half"]]
            parts.setdefault(f"{found['layer']}.weight", {})[half] = value
    names = renamed(parts)
    layers: list[tuple[Tensor, Tensor]] = []
    for name, halves in parts.items():
        if not {"down", "up"} <= halves.keys():
            raise UsageError(f"{place}: the LoRA has one half only for {name}; fetch it again")
        down, up = halves["down"].float(), halves["up"].float()
        layer = _layer(model, names[name].removesuffix(".weight"))
        if layer is None or tuple(layer.weight.shape) != (up.shape[0], down.shape[1]):
            raise UsageError(f"{place}: the LoRA is of another model: it is for {name}, which this one has not so")
        scale = weight * float(halves.get("alpha", torch.tensor(down.shape[0]))) / down.shape[0]
        layers.append((layer.weight, scale * (up @ down)))
    if not layers:
        raise UsageError(f"{place} is no LoRA: it has no weights named so; give the file that has")
    for target, change in layers:
        target.copy_((target.float() + change.to(target.device)).to(target.dtype))


def _layer(model: CausalWan, name: str) -> nn.Linear | None:
    try:
        found = model.get_submodule(name)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear) else None
