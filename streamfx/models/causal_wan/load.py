"""Reads Wan generators from the files that they are published in."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.dit import WAN_1_3B, WAN_14B, CausalWan, WanSize
from streamfx.models.causal_wan.keys import to_ours
from streamfx.models.explained import explained

Size = Literal["1.3B", "14B", "auto"]

_NAMED: dict[str, WanSize] = {"1.3B": WAN_1_3B, "14B": WAN_14B}
_HEAD_DIM = 128
"""Of all Wan models; the shapes of the weights do not tell it."""

_EXTRA = ("text_encoder.", "vae.", "rope.", "freqs", "_cls_pred_branch.", "_gan_ca_blocks.", "_register_tokens")
"""What may lie beside a generator and is no part of it: other models, tables that are computed, and the heads that
Self-Forcing adds for training against a critic."""

_SUFFIXES = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}


def load_generator(
    place: str,
    size: Size = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> CausalWan:
    """``place``: a ``.pt``, ``.pth`` or ``.safetensors`` file, a ``….safetensors.index.json`` with its shards, or a
    folder that holds one of these, perhaps in ``transformer/`` (diffusers). Names are those of ``keys.py``. ``size``:
    "auto" takes it from the shapes; another is checked against them.

    The file is mapped and its weights are copied one by one, so a large model takes its own size of memory and not
    twice that (but for files that torch wrote before 1.6, which cannot be mapped). Raises ``UsageError``: what is
    missing or broken, and what to do.
    """
    weights = {name: value for name, value in to_ours(read_weights(place)).items() if not name.startswith(_EXTRA)}
    found = _size_of(weights, place)
    if size != "auto" and found != _NAMED[size]:
        raise UsageError(
            f"{place} is no {size} generator of Wan 2.1 from text: it is {found.dim} wide with {found.layers} layers"
            f" and {found.channels} channels; give the checkpoint of that size, or size auto"
        )
    with torch.device("meta"):
        model = CausalWan(found)
    fill(model, weights, place, device, dtype)
    return model


def _size_of(weights: Mapping[str, Tensor], place: str) -> WanSize:
    telling = ("patch_embedding", "text_embedding.0", "time_embedding.0", "blocks.0.ffn.0")
    lacking = [f"{name}.weight" for name in telling if f"{name}.weight" not in weights]
    if lacking:
        raise UsageError(f"{place} is no checkpoint of a Wan generator: it lacks {_listed(lacking)}; give one that is")
    shapes = [tuple(weights[f"{name}.weight"].shape) for name in telling]
    patch, text, time, hidden = shapes
    if [len(shape) for shape in shapes] != [5, 2, 2, 2] or patch[0] % _HEAD_DIM:
        raise UsageError(
            f"{place} is no checkpoint of a Wan generator: its weights have other shapes; give one that is"
        )
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return WanSize(
        dim=patch[0],
        heads=patch[0] // _HEAD_DIM,
        hidden=hidden[0],
        layers=len(layers),
        channels=patch[1],
        text_dim=text[1],
        time_dim=time[1],
    )


def fill(
    model: nn.Module,
    weights: dict[str, Tensor],
    place: str,
    device: torch.device | str,
    dtype: torch.dtype,
) -> None:
    """Gives ``model``, which is on the meta device, its weights, and makes it ready to run. ``weights`` is empty
    afterwards. Raises ``UsageError`` unless names and shapes are exactly the model's."""
    expected = model.state_dict()
    shared = [name for name in expected if name in weights]
    problems = {
        "lacks": [name for name in expected if name not in weights],
        "holds what is not of this model:": [name for name in weights if name not in expected],
        "has another shape in": [name for name in shared if weights[name].shape != expected[name].shape],
    }
    for what, names in problems.items():
        if names:
            raise UsageError(
                f"{place} {what} {_listed(names)}; check that it is the right checkpoint, or fetch it again"
            )
    # A copy of each: what was read may be mapped from the file, which may change.
    own = {name: weights.pop(name).to(device, dtype, copy=True) for name in expected}
    model.load_state_dict(own, assign=True)
    model.eval().requires_grad_(False)


def _listed(names: Iterable[str], most: int = 3) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def read_weights(place: str) -> dict[str, object]:
    """What a checkpoint holds, on the CPU, and mapped from its file where the format allows. Nothing but weights is
    unpickled. Raises ``UsageError`` if it is missing or broken."""
    from safetensors import SafetensorError

    with explained(place, "the checkpoint"):
        held: dict[str, object] = {}
        for file in _files(Path(place)):
            try:
                held |= _read(file)
            except SafetensorError as error:
                raise ValueError(f"{file.name}: {error}") from error
            except (pickle.UnpicklingError, EOFError) as error:
                # The error's own words are advice to load it without care.
                raise ValueError(f"{file.name} is damaged, or holds more than weights") from error
        return held


def _read(file: Path) -> dict[str, object]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(held, Mapping):
        raise ValueError(f"{file.name} holds no weights by name")
    return dict(held)


def _files(place: Path) -> list[Path]:
    """Those that make up a checkpoint."""
    if not place.exists():
        raise UsageError(f"{place} does not exist; give a checkpoint's file, or the folder that holds it")
    if place.is_dir():
        place = _only(place / "transformer" if (place / "transformer").is_dir() else place)
    if place.name.endswith(".index.json"):
        shards = json.loads(place.read_text())["weight_map"].values()
        return [place.parent / Path(shard).name for shard in sorted(set(shards))]
    if place.suffix not in _SUFFIXES:
        raise UsageError(f"{place} is of no kind that is known; give one of {', '.join(sorted(_SUFFIXES))}")
    return [place]


def _only(folder: Path) -> Path:
    """The one checkpoint in a folder: an index before files of safetensors before others."""
    others = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES - {".safetensors"})
    for found in (sorted(folder.glob("*.index.json")), sorted(folder.glob("*.safetensors")), others):
        if len(found) > 1:
            raise UsageError(f"{folder} holds {_listed(file.name for file in found)}; give the one that is meant")
        if found:
            return found[0]
    raise UsageError(f"{folder} holds no checkpoint; give a file of {', '.join(sorted(_SUFFIXES))}")
