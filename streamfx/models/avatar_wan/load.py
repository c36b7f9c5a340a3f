"""Reads large avatars from the files that they are published in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.avatar_wan.flash_head import SEEN, FlashWan
from streamfx.models.avatar_wan.injection import SoundSize
from streamfx.models.avatar_wan.keys import of_avatar
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.causal_wan.dit import WanSize
from streamfx.models.causal_wan.load import fill, read_weights

_HEAD_DIM = 128
"""Of all Wan models; the shapes of the weights do not tell it."""

_AFTER = {
    (40, 12): (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39),
    (30, 8): (0, 4, 8, 12, 16, 20, 24, 27),
}
"""Layers after which sound is asked for, by how many layers there are, and how many ask: of the published ones, for
files that have no config.json beside them."""


def load_avatar(
    place: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> SpeakingWan | FlashWan:
    """``place``: a file, an index of shards, or a folder with one of these, as ``causal_wan.load.load_generator`` takes
    them: of Wan2.2-S2V, or of SoulX-FlashHead's Pro model. Sizes are taken from the shapes. Live Avatar is
    ``causal_wan.lora.fuse`` of its LoRA into Wan2.2-S2V. Raises ``UsageError``: what is missing or broken, and what to
    do."""
    kind, weights = of_avatar(read_weights(place), place)
    size = _size_of(weights, place)
    with torch.device("meta"):
        model = (
            SpeakingWan(size, _sound_of(weights, size, place))
            if kind == "s2v"
            else FlashWan(size, _flash_sound_of(weights, size, place))
        )
    fill(model, weights, place, device, dtype)
    if isinstance(model, SpeakingWan):
        # As in the original: what is heard is small, and single precision costs nothing.
        model.casual_audio_encoder.float()
    return model


def _size_of(weights: Mapping[str, Tensor], place: str) -> WanSize:
    patch, time, hidden, head = (
        _shape(weights, f"{name}.weight", place)
        for name in ("patch_embedding", "time_embedding.0", "blocks.0.ffn.0", "head.head")
    )
    if len(patch) != 5 or patch[2:] != (1, 2, 2) or patch[0] % _HEAD_DIM:
        raise UsageError(
            f"{place} is not for latents of Wan's autoencoder (FlashHead Lite is for LTX's); give Wan2.2-S2V, or"
            f" Model_Pro of SoulX-FlashHead"
        )
    text = weights.get("text_embedding.0.weight")
    return WanSize(
        dim=patch[0],
        heads=patch[0] // _HEAD_DIM,
        hidden=hidden[0],
        layers=_count(weights, "blocks."),
        channels=head[0] // 4,
        text_dim=4096 if text is None else text.shape[1],
        time_dim=time[1],
    )


def _sound_of(weights: Mapping[str, Tensor], size: WanSize, place: str) -> SoundSize:
    first = _shape(weights, "casual_audio_encoder.encoder.conv1_local.conv.weight", place)
    layers = _shape(weights, "casual_audio_encoder.weights", place)[1]
    asking = _count(weights, "audio_injector.injector.")
    after = _configured(place) or _AFTER.get((size.layers, asking))
    if after is None or len(after) != asking or max(after) >= size.layers:
        raise UsageError(
            f"{place}: sound is asked for after {asking} of {size.layers} layers, and it is not known which; put the"
            f" checkpoint's config.json, with audio_inject_layers, beside it"
        )
    return SoundSize(layers, first[1], first[0] // (size.dim // 4), after)


def _configured(place: str) -> tuple[int, ...] | None:
    """Layers after which sound is asked for, by the config.json of a checkpoint's folder."""
    where = Path(place)
    file = (where if where.is_dir() else where.parent) / "config.json"
    try:
        held = json.loads(file.read_text())["audio_inject_layers"]
        return tuple(int(layer) for layer in held)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _flash_sound_of(weights: Mapping[str, Tensor], size: WanSize, place: str) -> tuple[int, int, int]:
    inner, first = _shape(weights, "audio_proj.proj1.weight", place)
    return first // SEEN, inner, _shape(weights, "audio_proj.proj3.weight", place)[0] // size.dim


def _shape(weights: Mapping[str, Tensor], name: str, place: str) -> tuple[int, ...]:
    if name not in weights:
        raise UsageError(f"{place} lacks {name}; check that it is the right checkpoint, or fetch it again")
    return tuple(weights[name].shape)


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})
