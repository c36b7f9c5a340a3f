"""The renderer's weights, which come with the package; its way into latents is the restyler's, and not kept twice."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from streamfx.core.errors import FilterError
from streamfx.models.avatar.renderer import Renderer
from streamfx.models.tiny import load as tiny

WEIGHTS = Path(__file__).parent / "weights"
FILE = "renderer.safetensors"
SHARED = "codes."
"""What the names of the restyler's weights begin with, which are not in the file."""


def renderer(
    device: str = "cpu", dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS, restyler: Path = tiny.WEIGHTS
) -> Renderer:
    """The network, ready to be used. Raises ``FilterError`` if a file is missing or is not what this version wants."""
    model = Renderer()
    files = {restyler / "autoencoder.safetensors": SHARED, folder / FILE: ""}
    weights: dict[str, Tensor] = {}
    for path, before in files.items():
        try:
            held = load_file(path)
        except FileNotFoundError as error:
            raise FilterError(f"{path.name} is not in the package; install streamfx again") from error
        except (SafetensorError, OSError) as error:
            raise FilterError(_unwanted(path)) from error
        weights |= {before + name: value.float() for name, value in held.items()}
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise FilterError(_unwanted(folder / FILE)) from error
    model.eval().requires_grad_(False)
    return model.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _unwanted(path: Path) -> str:
    return f"{path.name} is not what this version of streamfx wants; install streamfx again"
