"""Trains the autoencoder: to draw what the teacher made from its latent, on a source it sees with a camera's noise.

python train_autoencoder.py DATA OUT --hours 3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from clips import Squares
from common import Run, ahead, to_tensor
from torch import Tensor
from torch.nn import functional

from streamfx.models.tiny.autoencoder import Autoencoder

SIDE, BATCH = 128, 12
_SAME = 0.15
_SMALL = 0.3


def batch(squares: Squares, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Sources and targets, ``(B, 3, SIDE, SIDE)`` each; some targets are the source itself."""
    clips = [squares.clip(draw, 1, (SIDE, SIDE), named=0.8) for _ in range(BATCH)]
    sources = to_tensor(np.concatenate([clip.source for clip in clips]))
    targets = to_tensor(np.concatenate([clip.clean if draw.random() < _SAME else clip.target for clip in clips]))
    return sources, targets


def drawn(model: Autoencoder, source: Tensor, target: Tensor, small: bool) -> tuple[Tensor, Tensor]:
    """The target, by way of its latent (of half its size, if ``small``), and the latent."""
    seen = functional.interpolate(target, scale_factor=0.5, mode="bilinear", antialias=True) if small else target
    latent = model.encoder(seen)
    grown = functional.interpolate(latent, scale_factor=2.0, mode="bilinear") if small else latent
    style = latent.new_zeros(len(latent), model.size.style)  # which it is told of in the last stage
    return model.decoder(grown, model.encoder.features(source), style), latent


def difference(found: Tensor, target: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """L1 over as many sizes as there are weights, each half of the one before, of pictures and of their gradients."""
    total = torch.zeros(())
    for level, weight in enumerate(weights):
        if level:
            found, target = (functional.avg_pool2d(x, 2) for x in (found, target))
        total = total + weight * (found - target).abs().mean()
        for axis in (-1, -2):
            total = total + 0.5 * weight * (found.diff(dim=axis) - target.diff(dim=axis)).abs().mean()
    return total


@torch.no_grad()
def held_out(model: Autoencoder, squares: Squares) -> dict[str, float]:
    """PSNR in dB on squares that were never trained on; and what the latents' scale is."""
    draw = np.random.default_rng(1)
    errors, latents = {False: [], True: []}, []
    for _ in range(6):
        source, target = batch(squares, draw)
        for small in (False, True):
            found, latent = drawn(model, source, target, small)
            errors[small].append(float((found.clamp(-1, 1) - target).square().mean()))
            latents.append(latent)
    psnr = {small: 10 * np.log10(4 / np.mean(some)) for small, some in errors.items()}
    return {"psnr": round(psnr[False], 2), "psnr_small": round(psnr[True], 2)}


def measure(model: Autoencoder, squares: Squares) -> None:
    """Sets mean and deviation of the latents."""
    draw = np.random.default_rng(2)
    with torch.no_grad():
        latents = torch.cat([model.encoder(torch.cat(batch(squares, draw))) for _ in range(16)])
        model.mean.copy_(latents.mean((0, 2, 3))[:, None, None])
        model.deviation.copy_(latents.std((0, 2, 3))[:, None, None])


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the autoencoder of the embedded restyler.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    model = Autoencoder()
    run = Run(given.out, model, rate=1e-3, hours=given.hours)
    train, test = Squares(given.data), Squares(given.data, held_out=True)
    batches = ahead(lambda draw: batch(train, draw), seed=run.step)
    for source, target in batches:
        if run.over:
            break
        with torch.autocast("cpu", torch.bfloat16):
            found, latent = drawn(model, source, target, small=np.random.random() < _SMALL)
        loss = difference(found.float(), target) + 1e-3 * latent.float().square().mean()
        run.learn(loss)
        run.save()
        if run.step % 500 == 0:
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(run.averaged)
            run.note(**held_out(model, test))
            model.load_state_dict(kept)
    model.load_state_dict(run.averaged)
    measure(model, train)
    run.note(**held_out(model, test))
    torch.save(model.state_dict(), given.out / "autoencoder.pt")


if __name__ == "__main__":
    main()
