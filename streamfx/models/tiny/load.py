"""The weights that come with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from streamfx.core.errors import FilterError
from streamfx.models.tiny.autoencoder import Autoencoder
from streamfx.models.tiny.dit import TinyDiT
from streamfx.models.tiny.style_encoder import StyleEncoder

WEIGHTS = Path(__file__).parent / "weights"

T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Networks:
    autoencoder: Autoencoder
    dit: TinyDiT


def networks(device: str = "cpu", dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS) -> Networks:
    """What draws. Raises ``FilterError`` if a file is missing or is not what this version wants."""
    codes = _filled(Autoencoder, folder / "autoencoder.safetensors").to(device, dtype)
    return Networks(
        codes.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        _filled(TinyDiT, folder / "dit.safetensors").to(device, dtype),
    )


def style_encoder(folder: Path = WEIGHTS) -> StyleEncoder:
    """What tells a picture's style. Raises as ``networks`` does."""
    return _filled(StyleEncoder, folder / "style_encoder.safetensors")


def _filled(kind: type[T], path: Path) -> T:
    model = kind()  # not on the meta device: that imports torch's compiler, which takes most of a second
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        model.load_state_dict(weights, assign=True)
    except FileNotFoundError as error:
        raise FilterError(f"{path.name} is not in the package; install streamfx again") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise FilterError(f"{path.name} is not what this version of streamfx wants; install streamfx again") from error
    return model.eval().requires_grad_(False)
