"""The last stage: transformer and decoder together, at the two steps they will have, by what is seen.

    python finetune.py DATA AUTOENCODER.pt DIT STYLE_ENCODER.pt OUT --hours 4

``DIT`` is ``dit.pt`` or a checkpoint. This is the distillation to few steps, adversarial as in A. Sauer et al.,
"Adversarial Diffusion Distillation" (arXiv 2311.17042): the first step alone has to give a picture that a critic takes
for one of the teacher's; the second begins with what the first made, as it will (T. Yin et al., "Improved Distribution
Matching Distillation", arXiv 2405.14867). Without a critic what nothing foretells, so all strokes in plain surfaces,
comes out as its mean, or as a weave.

The decoder learns along: it was taught by true latents and now sees those the transformer makes, and the style. A part
of the clips is seen small by the transformer and drawn large. Leaves ``autoencoder.pt`` and ``dit.pt``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from clips import Squares
from common import Run, ahead
from critic import Critic, deceives, tells_apart
from torch import Tensor, nn
from torch.nn import functional
from train_autoencoder import difference
from train_dit import FIRST_LEVEL, Batch, Eye, Student, batch, noise_for, unsteadiness, vectors

from streamfx.models.tiny.autoencoder import Autoencoder, Features
from streamfx.models.tiny.dit import TinyDiT
from streamfx.models.tiny.stream import GRID
from streamfx.models.tiny.style_encoder import StyleEncoder

_SMALL = 0.3
_STROKES = (0.05, 0.2, 0.5, 0.5, 0.5)
_SIZES = (0.2, 0.4, 0.8, 1.0)
_WEIGHTS = {"latent": 0.15, "motion": 0.4, "picture": 0.5, "eyes": 0.2, "steady": 1.5, "deceives": 0.2, "critic": 1.0}


class Both(nn.Module):
    """What is trained, with who judges it. The encoder is not: latents stay what they are."""

    def __init__(self, autoencoder: Autoencoder, dit: TinyDiT) -> None:
        super().__init__()
        self.dit, self.decoder = dit, autoencoder.decoder.requires_grad_(True)
        self.critic = Critic(dit.size.dim)
        self.judge = [self.critic.judge()]  # in a list, so not a part of what is trained


def losses(student: Student, eye: Eye, both: Both, step: Batch, small: bool) -> dict[str, Tensor]:
    """Of two frames of each clip, one after the other. ``small``: the transformer sees a quarter of the pixels, if that
    is a whole number of tokens."""
    whole, here = (step.source, step.target), step.here
    frames = step.source.shape[1]
    small &= all(length % (2 * GRID) == 0 for length in step.source.shape[-2:])
    if small:
        step.source, step.target = (_halved(pictures) for pictures in whole)
    with torch.autocast("cpu", torch.bfloat16):
        found, target, features = student(step, noise_for(step, student.dit.size.channels), step.sigma, unrolled=True)
        if small:
            _, features = student.encode(whole[0])
        which = torch.cat([torch.arange(len(found)) * frames + frame for frame in (here - 1, here)])
        latents = torch.cat([found[:, here - 1], found[:, here]])
        style = step.share[:, None] * student.styles(step)
        seen = Features(features.half[which], features.quarter[which])
        pictures = student.decode(latents, seen, style.repeat(2, 1)).float()
        before, after = pictures.chunk(2)
        wanted = whole[1][:, here]
        ours, theirs = eye.see(after, wanted, step.chance)
        told = style.detach()
        found_out = tells_apart(both.critic, ours, theirs, told, step.chance)
    return {
        "latent": functional.smooth_l1_loss(found.float(), target, beta=0.3),
        "motion": functional.smooth_l1_loss(found.float().diff(dim=1), target.diff(dim=1), beta=0.3),
        "picture": difference(after, wanted, _SIZES),
        "eyes": eye.difference(ours, theirs),
        "steady": unsteadiness(before, after, step.back[:, here - 1], step.ground[:, here - 1] & step.ground[:, here]),
        "deceives": deceives(both.judge[0], ours, told),
        "critic": found_out,
    }


def _halved(pictures: Tensor) -> Tensor:
    small = functional.interpolate(pictures.flatten(0, 1), scale_factor=0.5, mode="bilinear", antialias=True)
    return small.unflatten(0, pictures.shape[:2])


@torch.no_grad()
def held_out(student: Student, eye: Eye, both: Both, squares: Squares) -> dict[str, float]:
    """On clips that were never trained on, at the first step."""
    draw = np.random.default_rng(1)
    found: list[dict[str, Tensor]] = []
    for n in range(16):
        given = batch(squares, draw)
        given.of_source[:] = True
        given.sigma[:] = FIRST_LEVEL
        found.append(losses(student, eye, both, given, small=n % 3 == 0))
    return {f"held_{name}": round(float(np.mean([float(one[name]) for one in found])), 4) for name in found[0]}


def _mean(some: Sequence[Tensor | None]) -> Tensor | None:
    found = [gradient for gradient in some if gradient is not None]
    return torch.stack(found).sum(0) / len(some) if found else None


def _means(figures: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in figures]).mean() for name in figures[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="The last stage of the training of the embedded restyler.")
    for name in ("data", "autoencoder", "dit", "style_encoder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--hours", type=float, default=4)
    given = parser.parse_args()
    torch.manual_seed(0)
    autoencoder, dit, encoder = Autoencoder(), TinyDiT(), StyleEncoder()
    autoencoder.load_state_dict(torch.load(given.autoencoder, weights_only=True))
    state = torch.load(given.dit, weights_only=True)
    dit.load_state_dict(state.get("averaged", state))
    encoder.load_state_dict(torch.load(given.style_encoder, weights_only=True))
    for model in (autoencoder, encoder):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    student, eye = Student(autoencoder, dit), Eye(encoder, _STROKES)
    both = Both(autoencoder, dit)
    run = Run(given.out, both, rate=5e-4, hours=given.hours)
    train, test = Squares(given.data), Squares(given.data, held_out=True)
    train.vectors = test.vectors = vectors(encoder, train.sources)
    batches = ahead(lambda draw: batch(train, draw), seed=run.step)

    def learnt(step: Batch) -> tuple[Sequence[Tensor | None], dict[str, Tensor]]:
        torch.set_num_threads(1)
        figures = losses(student, eye, both, step, small=float(torch.rand((), generator=step.chance)) < _SMALL)
        loss = torch.stack([_WEIGHTS[name] * figure for name, figure in figures.items()]).sum()
        found = torch.autograd.grad(loss, run.trained, allow_unused=True)
        return found, {name: figure.detach() for name, figure in {"loss": loss, **figures}.items()}

    # A batch on each core: many small operations leave cores idle that have one in common.
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as threads:
        while not run.over:
            gradients, figures = zip(*threads.map(learnt, islice(batches, cores)), strict=True)
            run.follow([_mean(some) for some in zip(*gradients, strict=True)], **_means(figures))
            run.save()
            if run.step % 250 == 0:
                kept = {name: value.clone() for name, value in both.state_dict().items()}
                both.load_state_dict(run.averaged)
                run.note(**held_out(student, eye, both, test))
                both.load_state_dict(kept)
    both.load_state_dict(run.averaged)
    run.note(**held_out(student, eye, both, test))
    torch.save(dit.state_dict(), given.out / "dit.pt")
    torch.save(autoencoder.state_dict(), given.out / "autoencoder.pt")


if __name__ == "__main__":
    main()
