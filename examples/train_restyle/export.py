"""Puts trained weights into the package, in half precision: ``streamfx/models/tiny/weights``.

    python export.py AUTOENCODER.pt DIT STYLE_ENCODER.pt

``DIT`` is ``dit.pt``, or the checkpoint of a training that still goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from streamfx.models.tiny.load import WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts trained weights into the package.")
    for name in ("autoencoder", "dit", "style_encoder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in ("autoencoder", "dit", "style_encoder"):
        state = torch.load(getattr(given, name), weights_only=True)
        state = state.get("averaged", state)
        whole = {key: value.half().contiguous() for key, value in state.items()}
        save_file(whole, given.out / f"{name}.safetensors")
        size = (given.out / f"{name}.safetensors").stat().st_size / 1e6
        print(f"{name}: {sum(value.numel() for value in whole.values()) / 1e6:.2f} M weights, {size:.1f} MB")


if __name__ == "__main__":
    main()
