"""Trains the diffusion transformer in the latent space of the trained autoencoder, on short clips.

    python train_dit.py DATA AUTOENCODER.pt OUT --hours 8

A clip's frames are at one noise level, with one noise, as rows of a stream batch are; each sees those before it. The
target is a deterministic function of the source and its past, so few steps are enough without another distillation:
what is learnt at the noisiest level is a single-step model, and the levels below correct it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from clips import Clip, Squares
from common import Run, ahead, to_tensor
from torch import Tensor, nn
from torch.nn import functional
from train_autoencoder import difference

from streamfx.diffusion.rope import Rope3D
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, Features
from streamfx.models.tiny.dit import PATCH, TinyDiT, Whole

FRAMES, SIDE, BATCH = 4, 192, 4
SINKS, WINDOW = 1, 3
_PLAIN = 0.1
_WEAK = 0.2
_FIRST = 0.3
"""Shares of clips: without a style, with a weak one, at the noisiest level."""


class Batch:
    """``source``, ``target``: ``(B, F, 3, SIDE, SIDE)``; ``share``: ``(B,)`` of the style, 0 where it is left out."""

    def __init__(self, clips: list[Clip], draw: np.random.Generator) -> None:
        self.source = to_tensor(np.stack([clip.source for clip in clips]))
        styled = to_tensor(np.stack([clip.target for clip in clips]))
        clean = to_tensor(np.stack([clip.clean for clip in clips]))
        kind = draw.random(len(clips))
        share = np.where(kind < _PLAIN, 0.0, np.where(kind < _PLAIN + _WEAK, draw.uniform(0.2, 1, len(clips)), 1.0))
        self.share = torch.from_numpy(share).float()
        self.target = torch.lerp(clean, styled, self.share[:, None, None, None, None])
        self.named = torch.tensor([clip.style for clip in clips])
        self.vector = torch.from_numpy(np.stack([clip.vector for clip in clips]))
        # Half of the time as the first step of a stream sees it: noise on the source, not on the target.
        self.of_source = torch.from_numpy(draw.random(len(clips)) < 0.5)
        first = draw.random(len(clips)) < _FIRST
        self.sigma = torch.from_numpy(np.where(first, 1.0, draw.uniform(0.02, 1, len(clips)))).float()


def batch(squares: Squares, draw: np.random.Generator) -> Batch:
    return Batch([squares.clip(draw, FRAMES, SIDE) for _ in range(BATCH)], draw)


class Student(nn.Module):
    """The transformer with what training needs around it."""

    def __init__(self, autoencoder: Autoencoder, dit: TinyDiT) -> None:
        super().__init__()
        self.dit = dit
        self._codes = [autoencoder.eval().requires_grad_(False)]  # not a part of what is trained
        grid = SIDE // SHRINK // PATCH
        rope = Rope3D(dit.size.head_dim, (grid, grid), FRAMES + 1)
        self._attention = Whole(FRAMES, grid * grid, rope, SINKS, WINDOW)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Features]:
        with torch.no_grad():
            latents, features = self._codes[0].encode(pictures.flatten(0, 1))
        return latents.unflatten(0, pictures.shape[:2]), features

    def decode(self, latents: Tensor, features: Features) -> Tensor:
        return self._codes[0].decode(latents, features)

    def styles(self, batch: Batch) -> Tensor:
        named = self.dit.style(named=batch.named.clamp_min(0))
        return torch.where((batch.named >= 0)[:, None], named, self.dit.style(vector=batch.vector))

    def forward(self, batch: Batch, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Features]:
        """Predicted and true clean latents, and the features of the sources."""
        source, features = self.encode(batch.source)
        target, _ = self.encode(batch.target)
        base = torch.where(batch.of_source[:, None, None, None, None], source, target)
        level = sigma[:, None, None, None, None]
        x = (1 - level) * base + level * noise
        found = self.dit(x, sigma, source, self.styles(batch), batch.share, [self._attention] * self.dit.size.layers)
        return found, target, features


def noise_for(batch: Batch, channels: int, draw: torch.Generator | None = None) -> Tensor:
    """The same for all frames of a clip."""
    grid = SIDE // SHRINK
    return torch.randn(len(batch.share), 1, channels, grid, grid, generator=draw).expand(-1, FRAMES, -1, -1, -1)


@torch.no_grad()
def held_out(student: Student, squares: Squares) -> dict[str, float]:
    """A single step from the noisiest level, on clips that were never trained on: PSNR to the teacher in dB; how much a
    still picture under a camera's noise changes from frame to frame, in parts of what the teacher's would."""
    draw, chance = np.random.default_rng(1), torch.Generator().manual_seed(1)
    errors, latents = [], []
    for _ in range(6):
        given = batch(squares, draw)
        given.of_source[:] = True
        with torch.autocast("cpu", torch.bfloat16):
            sigma = torch.full((len(given.share),), 0.9)
            found, target, features = student(given, noise_for(given, student.dit.size.channels, chance), sigma)
        latents.append(float((found.float() - target).abs().mean()))
        pictures = student.decode(found.float().flatten(0, 1), features)
        errors.append(float((pictures - given.target.flatten(0, 1)).square().mean()))
    return {"psnr": round(float(10 * np.log10(4 / np.mean(errors))), 2), "latent": round(float(np.mean(latents)), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the transformer of the embedded restyler.")
    parser.add_argument("data", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(torch.load(given.autoencoder, weights_only=True))
    dit = TinyDiT()
    student = Student(autoencoder, dit)
    run = Run(given.out, dit, rate=6e-4, hours=given.hours)
    train, test = Squares(given.data), Squares(given.data, held_out=True)
    for step in ahead(lambda draw: batch(train, draw), seed=run.step):
        if run.over:
            break
        with torch.autocast("cpu", torch.bfloat16):
            found, target, features = student(step, noise_for(step, dit.size.channels), step.sigma)
        latent = functional.smooth_l1_loss(found.float(), target, beta=0.3)
        # One frame of each clip is looked at as a picture.
        frame = int(np.random.randint(FRAMES))
        which = torch.arange(len(step.share)) * FRAMES + frame
        with torch.autocast("cpu", torch.bfloat16):
            seen = student.decode(found[:, frame], Features(features.half[which], features.quarter[which]))
        picture = difference(seen.float(), step.target[:, frame])
        run.learn(latent + 0.5 * picture, latent=float(latent), picture=float(picture))
        run.save()
        if run.step % 500 == 0:
            kept = {name: value.clone() for name, value in dit.state_dict().items()}
            dit.load_state_dict(run.averaged)
            run.note(**held_out(student, test))
            dit.load_state_dict(kept)
    dit.load_state_dict(run.averaged)
    run.note(**held_out(student, test))
    torch.save(dit.state_dict(), given.out / "dit.pt")


if __name__ == "__main__":
    main()
