"""Trains the diffusion transformer in the latent space of the trained autoencoder, on short clips.

    python train_dit.py DATA AUTOENCODER.pt STYLE_ENCODER.pt OUT --hours 8

A clip's frames are at one noise level, with one noise, as rows of a stream batch are; each sees those before it. Levels
are mostly those of the steps it will have: at the first a source is under the noise, at the second what was made of it.
The target is a function of the source, so what is learnt at the first is a single-step model.

At first latents are compared with those of the teacher's clip, and how they change from frame to frame. That gives
colours and contours; strokes, which nothing foretells, come out as their mean. So after a third of the time clips are
longer, and more is compared: pixels, the coarse ones above all; what the style encoder sees early, and its statistics,
which stand for strokes wherever they are; and a picture with the one before it, moved as the camera did.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from clips import Clip, Squares
from common import Run, ahead, to_tensor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from train_autoencoder import difference

from streamfx.diffusion.rope import Rope3D
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, Features
from streamfx.models.tiny.dit import TinyDiT, Whole
from streamfx.models.tiny.stream import GRID, SINKS, WINDOW
from streamfx.models.tiny.style_encoder import StyleEncoder, fitted

SHAPES = {(192, 192): 16, (256, 144): 16, (144, 256): 16, (256, 256): 8}
"""Width and height of clips, each with how many frames make a batch."""
FIRST_LEVEL = 0.9
_EARLY = 0.33
_STROKES = (0.1, 0.3, 1.0, 1.0, 1.0)
"""Weights of what goes together at the five depths: strokes are many pixels long."""
_PLAIN = 0.1
_WEAK = 0.15
_FIRST = 0.65
_ANY = 0.1
"""Shares of clips: without a style, with a weak one; at the first step, at any level."""


class Batch:
    """``source``, ``target``: ``(B, F, 3, H, W)``; ``share``: ``(B,)`` of the style, 0 where it is left out;
    ``here``: the frame whose picture is looked at, with the one before; ``chance``: for what is drawn on the way."""

    def __init__(self, clips: list[Clip], draw: np.random.Generator) -> None:
        self.source = to_tensor(np.stack([clip.source for clip in clips]))
        styled = to_tensor(np.stack([clip.target for clip in clips]))
        clean = to_tensor(np.stack([clip.clean for clip in clips]))
        kind = draw.random(len(clips))
        share = np.where(kind < _PLAIN, 0.0, np.where(kind < _PLAIN + _WEAK, draw.uniform(0.2, 1, len(clips)), 1.0))
        self.share = torch.from_numpy(share).float()
        self.target = torch.lerp(clean, styled, self.share[:, None, None, None, None])
        self.back = torch.from_numpy(np.stack([clip.back for clip in clips]))
        self.ground = torch.from_numpy(np.stack([clip.ground for clip in clips]))
        self.named = torch.tensor([clip.style for clip in clips])
        self.vector = torch.from_numpy(np.stack([clip.vector for clip in clips]))
        kind = draw.random(len(clips))
        first, anywhere = kind < _FIRST, kind > 1 - _ANY
        self.of_source = torch.from_numpy(first | (anywhere & (draw.random(len(clips)) < 0.5)))
        level = np.where(first, draw.uniform(0.85, 0.95, len(clips)), draw.uniform(0.35, 0.65, len(clips)))
        self.sigma = torch.from_numpy(np.where(anywhere, draw.uniform(0.02, 1, len(clips)), level)).float()
        self.here = int(draw.integers(1, self.source.shape[1]))
        self.chance = torch.Generator().manual_seed(int(draw.integers(2**62)))


def batch(squares: Squares, draw: np.random.Generator, frames: int = 4) -> Batch:
    size, count = list(SHAPES.items())[int(draw.integers(len(SHAPES)))]
    return Batch([squares.clip(draw, frames, size) for _ in range(count // frames)], draw)


class Student(nn.Module):
    """The transformer with what training needs around it."""

    def __init__(self, autoencoder: Autoencoder, dit: TinyDiT) -> None:
        super().__init__()
        self.dit = dit
        self._codes = [autoencoder.eval().requires_grad_(False)]  # in a list, so not a part of what is trained

    @lru_cache  # noqa: B019 — there is one student
    def attention(self, frames: int, height: int, width: int) -> Whole:
        """For clips of that many frames and pixels."""
        grid = height // GRID, width // GRID
        rope = Rope3D(self.dit.size.head_dim, grid, frames)
        return Whole(frames, grid[0] * grid[1], rope, SINKS, WINDOW)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Features]:
        with torch.no_grad():
            latents, features = self._codes[0].encode(pictures.flatten(0, 1))
        return latents.unflatten(0, pictures.shape[:2]), features

    def decode(self, latents: Tensor, features: Features, style: Tensor) -> Tensor:
        return self._codes[0].decode(latents, features, style)

    def styles(self, batch: Batch) -> Tensor:
        named = self.dit.style(named=batch.named.clamp_min(0))
        return torch.where((batch.named >= 0)[:, None], named, self.dit.style(vector=batch.vector))

    def forward(
        self, batch: Batch, noise: Tensor, sigma: Tensor, unrolled: bool = False
    ) -> tuple[Tensor, Tensor, Features]:
        """Predicted and true clean latents, and the features of the sources. ``unrolled``: what lies under the noise of
        later steps is not the teacher's but what the student itself made in the first."""
        source, features = self.encode(batch.source)
        target, _ = self.encode(batch.target)
        see = [self.attention(len(source[0]), *batch.source.shape[-2:])] * self.dit.size.layers
        style = self.styles(batch)

        def step(base: Tensor, sigma: Tensor) -> Tensor:
            level = sigma[:, None, None, None, None]
            made: Tensor = self.dit((1 - level) * base + level * noise, sigma, source, style, batch.share, see)
            return made

        later = target
        if unrolled and not batch.of_source.all():
            with torch.no_grad():
                later = step(source, torch.full_like(sigma, FIRST_LEVEL)).to(target.dtype)
        found = step(torch.where(batch.of_source[:, None, None, None, None], source, later), sigma)
        return found, target, features


@torch.no_grad()
def vectors(encoder: StyleEncoder, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The styles of all squares, as the converted encoder sees them: a little different from the original's."""
    return np.concatenate([encoder(fitted(to_tensor(square))).numpy() for square in squares])


class Eye:
    """Compares pictures by what the style encoder sees of them on its way."""

    def __init__(self, encoder: StyleEncoder, strokes: Sequence[float]) -> None:
        self._encoder, self._strokes = encoder.eval().requires_grad_(False), strokes

    def see(self, found: Tensor, target: Tensor, chance: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Features of ``(B, 3, H, W)`` each, at five depths, in parts of how much they vary. Both are shifted alike by
        chance: always at the same place, the steps of the encoder's convolutions and the borders of tokens would fall
        together, and a weave of their width would be as good as strokes."""
        top, left = torch.randint(GRID, (2,), generator=chance).tolist()
        found, target = (picture[..., top:, left:] for picture in (found, target))
        with torch.no_grad():
            wanted = [there.float() for there in self._encoder.features(target)]
        scales = [there.std() + 1e-3 for there in wanted]
        ours = [seen.float() / scale for seen, scale in zip(self._encoder.features(found), scales, strict=True)]
        return ours, [there / scale for there, scale in zip(wanted, scales, strict=True)]

    def difference(self, ours: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Of what ``see`` gives: of features where they are, and of their statistics."""
        total = torch.zeros(())
        for seen, there, weight in zip(ours, wanted, self._strokes, strict=True):
            together = gram(there)
            total = total + 0.3 * (seen - there).abs().mean()
            for statistic in (Tensor.mean, Tensor.std):
                total = total + (statistic(seen, (2, 3)) - statistic(there, (2, 3))).abs().mean()
            total = total + weight * (gram(seen) - together).abs().mean() / together.abs().mean()
        return total


def gram(features: Tensor) -> Tensor:
    """``(B, C, H, W)`` → ``(B, C, C)``: which of them go together (L. Gatys et al., arXiv 1508.06576)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def unsteadiness(before: Tensor, here: Tensor, back: Tensor, ground: Tensor) -> Tensor:
    """How far ``(B, 3, H, W)`` are from those before, moved as the camera did: ``back`` ``(B, 2, 3)``, where it is all
    that moved: ``ground`` ``(B, H, W)``."""
    height, width = here.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], -1).float() @ back.transpose(1, 2)[:, None]
    grid = 2 * (places + 0.5) / torch.tensor([width, height]) - 1
    moved = functional.grid_sample(before, grid, align_corners=False)
    sure = (ground & (grid.abs() < 1).all(-1))[:, None]
    return ((moved - here).abs() * sure).sum() / (3 * sure.sum() + 1)


def noise_for(batch: Batch, channels: int) -> Tensor:
    """The same for all frames of a clip."""
    clips, frames = batch.source.shape[:2]
    height, width = (length // SHRINK for length in batch.source.shape[-2:])
    return torch.randn(clips, 1, channels, height, width, generator=batch.chance).expand(-1, frames, -1, -1, -1)


@torch.no_grad()
def held_out(student: Student, squares: Squares) -> dict[str, float]:
    """A single step from the noisiest level, on clips that were never trained on: PSNR to the teacher in dB, and the
    mean difference of the latents."""
    draw = np.random.default_rng(1)
    errors, latents = [], []
    for _ in range(12):
        given = batch(squares, draw)
        given.of_source[:] = True
        with torch.autocast("cpu", torch.bfloat16):
            sigma = torch.full((len(given.share),), FIRST_LEVEL)
            found, target, features = student(given, noise_for(given, student.dit.size.channels), sigma)
            style = (given.share[:, None] * student.styles(given)).repeat_interleave(found.shape[1], 0)
            pictures = student.decode(found.flatten(0, 1), features, style)
        latents.append(float((found - target).abs().mean()))
        errors.append(float((pictures - given.target.flatten(0, 1)).square().mean()))
    return {"psnr": round(float(10 * np.log10(4 / np.mean(errors))), 2), "latents": round(float(np.mean(latents)), 4)}


def seen_of(student: Student, eye: Eye, step: Batch, found: Tensor, features: Features) -> dict[str, Tensor]:
    """The losses of two frames of each clip, one after the other, drawn as pictures."""
    frames = found.shape[1]
    here = step.here
    which = torch.cat([torch.arange(len(found)) * frames + frame for frame in (here - 1, here)])
    with torch.autocast("cpu", torch.bfloat16):
        latents = torch.cat([found[:, here - 1], found[:, here]])
        style = (step.share[:, None] * student.styles(step)).repeat(2, 1)
        pictures = student.decode(latents, Features(features.half[which], features.quarter[which]), style).float()
        before, after = pictures.chunk(2)
        eyes = eye.difference(*eye.see(after, step.target[:, here], step.chance))
    picture = difference(after, step.target[:, here], (0.2, 0.3, 0.6, 1.0))
    steady = unsteadiness(before, after, step.back[:, here - 1], step.ground[:, here - 1] & step.ground[:, here])
    return {"picture": picture, "eyes": eyes, "steady": steady}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the transformer of the embedded restyler.")
    parser.add_argument("data", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("style_encoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(torch.load(given.autoencoder, weights_only=True))
    encoder = StyleEncoder()
    encoder.load_state_dict(torch.load(given.style_encoder, weights_only=True))
    eye = Eye(encoder, _STROKES)
    dit = TinyDiT()
    student = Student(autoencoder, dit)
    run = Run(given.out, dit, rate=1.5e-3, hours=given.hours)
    train, test = Squares(given.data), Squares(given.data, held_out=True)
    train.vectors = test.vectors = vectors(encoder, train.sources)
    for step in ahead(lambda draw: batch(train, draw, 2 if run.share < _EARLY else 4), seed=run.step):
        if run.over:
            break
        with torch.autocast("cpu", torch.bfloat16):
            found, target, features = student(step, noise_for(step, dit.size.channels), step.sigma)
        latent = functional.smooth_l1_loss(found.float(), target, beta=0.3)
        motion = functional.smooth_l1_loss(found.float().diff(dim=1), target.diff(dim=1), beta=0.3)
        figures = {"latent": latent, "motion": motion}
        loss = latent + motion
        if found.shape[1] > 2:
            figures |= seen_of(student, eye, step, found, features)
            loss = 0.3 * latent + 0.5 * motion + 0.5 * figures["picture"] + 0.2 * figures["eyes"] + figures["steady"]
        run.learn(loss, **figures)
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
