"""The speech network's weights, which come with the package."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from streamfx.core.errors import FilterError
from streamfx.models.avatar.speech import Speech

WEIGHTS = Path(__file__).parent / "weights"


def speech(folder: Path = WEIGHTS) -> Speech:
    """The network, ready to be used. Raises ``FilterError`` if the file is missing or not what this version wants."""
    path = folder / "speech.safetensors"
    model = Speech()
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        model.load_state_dict(weights, assign=True)
    except FileNotFoundError as error:
        raise FilterError(f"{path.name} is not in the package; install streamfx again") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise FilterError(f"{path.name} is not what this version of streamfx wants; install streamfx again") from error
    return model.eval().requires_grad_(False)
