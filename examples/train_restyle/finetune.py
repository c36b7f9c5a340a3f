"""The last stage: transformer and decoder together, at the two steps they will have, by what is seen.

    python finetune.py DATA AUTOENCODER.pt DIT STYLE_ENCODER.pt OUT --hours 1

``DIT`` is ``dit.pt`` or a checkpoint. The decoder was taught by true latents and now sees those the transformer makes;
it is what draws across the borders of tokens. A part of the clips is seen small by the transformer and drawn large.
Leaves ``autoencoder.pt`` and ``dit.pt``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from clips import Squares
from common import Run, ahead
from torch import Tensor, nn
from torch.nn import functional
from train_autoencoder import difference
from train_dit import Batch, Eye, Student, batch, noise_for, unsteadiness, vectors

from streamfx.models.tiny.autoencoder import Autoencoder, Features
from streamfx.models.tiny.dit import TinyDiT
from streamfx.models.tiny.stream import GRID
from streamfx.models.tiny.style_encoder import StyleEncoder

_SMALL = 0.3
_STROKES = (0.0, 0.1, 0.3, 0.5, 0.5)
_SIZES = (0.5, 0.7, 1.0, 1.0)


class Both(nn.Module):
    """What is trained. The encoder is not: latents stay what they are."""

    def __init__(self, autoencoder: Autoencoder, dit: TinyDiT) -> None:
        super().__init__()
        self.dit, self.decoder = dit, autoencoder.decoder.requires_grad_(True)


def losses(student: Student, eye: Eye, step: Batch, small: bool) -> dict[str, Tensor]:
    """Of two frames of each clip, one after the other. ``small``: the transformer sees a quarter of the pixels, if that
    is a whole number of tokens."""
    whole = step.source, step.target
    frames = step.source.shape[1]
    small &= all(length % (2 * GRID) == 0 for length in step.source.shape[-2:])
    if small:
        step.source, step.target = (_halved(pictures) for pictures in whole)
    with torch.autocast("cpu", torch.bfloat16):
        found, target, features = student(step, noise_for(step, student.dit.size.channels), step.sigma)
        if small:
            _, features = student.encode(whole[0])
        here = int(np.random.randint(1, frames))
        which = torch.cat([torch.arange(len(found)) * frames + frame for frame in (here - 1, here)])
        latents = torch.cat([found[:, here - 1], found[:, here]])
        pictures = student.decode(latents, Features(features.half[which], features.quarter[which])).float()
        before, after = pictures.chunk(2)
        wanted = whole[1][:, here]
        eyes = eye.difference(after, wanted)
    return {
        "latent": functional.smooth_l1_loss(found.float(), target, beta=0.3),
        "motion": functional.smooth_l1_loss(found.float().diff(dim=1), target.diff(dim=1), beta=0.3),
        "picture": difference(after, wanted, _SIZES),
        "eyes": eyes.float(),
        "steady": unsteadiness(before, after, step.back[:, here - 1], step.ground[:, here - 1] & step.ground[:, here]),
    }


def _halved(pictures: Tensor) -> Tensor:
    small = functional.interpolate(pictures.flatten(0, 1), scale_factor=0.5, mode="bilinear", antialias=True)
    return small.unflatten(0, pictures.shape[:2])


@torch.no_grad()
def held_out(student: Student, eye: Eye, squares: Squares) -> dict[str, float]:
    """On clips that were never trained on, at the first step."""
    draw = np.random.default_rng(1)
    found: list[dict[str, Tensor]] = []
    for n in range(10):
        given = batch(squares, draw)
        given.of_source[:] = True
        given.sigma[:] = 0.9
        found.append(losses(student, eye, given, small=n % 3 == 0))
    return {f"held_{name}": round(float(np.mean([float(one[name]) for one in found])), 4) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="The last stage of the training of the embedded restyler.")
    for name in ("data", "autoencoder", "dit", "style_encoder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--hours", type=float, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    autoencoder, dit, encoder = Autoencoder(), TinyDiT(), StyleEncoder()
    autoencoder.load_state_dict(torch.load(given.autoencoder, weights_only=True))
    state = torch.load(given.dit, weights_only=True)
    dit.load_state_dict(state.get("averaged", state))
    encoder.load_state_dict(torch.load(given.style_encoder, weights_only=True))
    student, eye = Student(autoencoder, dit), Eye(encoder, _STROKES)
    both = Both(autoencoder, dit)
    run = Run(given.out, both, rate=4e-4, hours=given.hours)
    train, test = Squares(given.data), Squares(given.data, held_out=True)
    train.vectors = test.vectors = vectors(encoder, train.sources)
    for step in ahead(lambda draw: batch(train, draw), seed=run.step):
        if run.over:
            break
        figures = losses(student, eye, step, small=np.random.random() < _SMALL)
        weights = {"latent": 0.3, "motion": 0.5, "picture": 0.5, "eyes": 0.2, "steady": 1.0}
        run.learn(torch.stack([weights[name] * figure for name, figure in figures.items()]).sum(), **figures)
        run.save()
        if run.step % 250 == 0:
            kept = {name: value.clone() for name, value in both.state_dict().items()}
            both.load_state_dict(run.averaged)
            run.note(**held_out(student, eye, test))
            both.load_state_dict(kept)
    both.load_state_dict(run.averaged)
    run.note(**held_out(student, eye, test))
    torch.save(dit.state_dict(), given.out / "dit.pt")
    torch.save(autoencoder.state_dict(), given.out / "autoencoder.pt")


if __name__ == "__main__":
    main()
