"""Trains the renderer of the embedded avatar on drawn characters.

    python renderer_clips.py DATA --count 1600
    python renderer_clips.py DATA --first 100000 --count 24
    python train_shape.py OUT
    python train_renderer.py DATA OUT --hours 1

It begins with the restyler's weights, in which a source is kept as it is where no style is asked for. A row of the
batch is a portrait and a clip of three frames at one noise level and with one noise; each frame sees those before it
and the portrait. All is seen at 256 pixels, most of it through a window on the face, which costs a seventh.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from renderer_clips import CLIPS, FRAMES, HELD_OUT, SIZE, Drawn, read
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from train_shape import shape_of

from streamfx.diffusion.rope import Rope3D
from streamfx.models.avatar.renderer import PATCH, Attention, Posed, Renderer
from streamfx.models.avatar.renderer_stream import LEVEL, SINKS, WINDOW, PortraitStream
from streamfx.models.tiny.autoencoder import SHRINK
from streamfx.models.tiny.dit import Whole
from streamfx.models.tiny.load import WEIGHTS

sys.path.append(str(Path(__file__).resolve().parents[1] / "train_restyle"))
from common import Run, ahead, to_tensor

_CELLS = SIZE // SHRINK
_WINDOW = 12
"""In latents: of the part that is looked at, most of the time."""
_WHOLE = 0.06
_BATCH = 2
_AROUND = ((0.0, 0.8, 0.5, 0.42, 5.0), (-0.43, -0.02, 0.3, 0.24, 6.0), (0.43, -0.02, 0.3, 0.24, 6.0))
"""What matters most, on the head: middle, radii and weight of the mouth and the eyes."""
_SHAPE_NOISE = 0.3
"""About how wrong the network is that tells shapes, in parts of how much people differ."""
_WEIGHTS = {"picture": 1.0, "latent": 0.1, "bend": 2.0, "new": 0.01}


class Batch:
    """``portraits`` ``(B, 3, S, S)``; ``shapes`` ``(B, 10)`` and mistakes in them, ``strange``; ``frames``
    ``(B F, 3, S, S)``, ``coefficients`` ``(B F, 17)``; ``part``: top, left, height and width in latents; ``noise``,
    ``sigma``."""

    def __init__(
        self, clips: list[tuple[Drawn, int]], part: tuple[int, int, int, int], draw: np.random.Generator
    ) -> None:
        self.portraits = to_tensor(np.stack([one.reference for one, _ in clips]))
        self.shapes = torch.from_numpy(np.stack([shape_of(one.seed) for one, _ in clips]))
        self.frames = to_tensor(np.concatenate([one.frames[which] for one, which in clips]))
        poses = np.concatenate([one.coefficients[which] for one, which in clips])
        self.coefficients = torch.from_numpy(poses)
        self.part = part
        self.sigma = torch.from_numpy(draw.uniform(LEVEL - 0.05, LEVEL + 0.05, len(clips))).float()
        chance = torch.Generator().manual_seed(int(draw.integers(2**62)))
        self.noise = torch.randn(len(clips), 16, *part[2:], generator=chance)
        self.strange = _SHAPE_NOISE * torch.randn(self.shapes.shape, generator=chance)


class Files:
    """What was drawn so far; more may come in while it is trained on."""

    def __init__(self, folder: Path, held_out: bool) -> None:
        self._folder, self._held_out = folder, held_out
        self.files: list[Path] = []
        self._asked = 0

    def pick(self, draw: np.random.Generator) -> Drawn:
        if self._asked % 500 == 0:
            self.files = sorted(f for f in self._folder.glob("*.npz") if (int(f.stem) >= HELD_OUT) == self._held_out)
        self._asked += 1
        return read(self.files[int(draw.integers(len(self.files)))])

    def batch(self, draw: np.random.Generator) -> Batch:
        whole = draw.random() < _WHOLE
        part = 0, 0, _CELLS, _CELLS
        if not whole:
            part = int(PATCH * draw.integers(5, 8)), int(PATCH * draw.integers(4, 7)), _WINDOW, _WINDOW
        clips = [(self.pick(draw), int(draw.integers(CLIPS))) for _ in range(1 if whole else _BATCH)]
        return Batch(clips, part, draw)


class Clips(Attention):
    """``Whole``, of clips whose frames are a row each."""

    def __init__(self, whole: Whole, frames: int) -> None:
        self._whole, self._frames = whole, frames

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = (x.unflatten(0, (-1, self._frames)).squeeze(2) for x in (query, key, value))
        return self._whole(*rows).flatten(0, 1)[:, None]


@lru_cache
def attention(height: int, width: int, heads: int) -> Clips:
    """Of a portrait and a clip on a grid of so many tokens."""
    frames = 1 + FRAMES
    rope = Rope3D(heads, (height, width), frames)
    return Clips(Whole(frames, height * width, rope, SINKS, WINDOW), frames)


def together(rest: Tensor, frames: Tensor) -> Tensor:
    """``(B, …)`` and ``(B F, …)`` → ``(B (1 + F), …)``, each clip after its portrait."""
    return torch.cat([rest[:, None], frames.unflatten(0, (len(rest), -1))], 1).flatten(0, 1)


def emphasis(posed: Posed) -> Tensor:
    """``(R, 1, H, W)``, 1 on the mean."""
    head = functional.interpolate(posed.head, scale_factor=float(SHRINK), mode="bilinear")
    found = torch.ones_like(head[:, :1])
    for x, y, across, down, weight in _AROUND:
        off = ((head[:, :1] - x) / across).square() + ((head[:, 1:] - y) / down).square()
        found = found + weight * (-off.square()).exp()
    return found / found.mean()


def difference(found: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 over three sizes, of pictures and of their gradients."""
    total = torch.zeros(())
    for level in range(3):
        if level:
            found, target, weight = (functional.avg_pool2d(x, 2) for x in (found, target, weight))
        total = total + (weight * (found - target).abs()).mean()
        across, down = (found.diff(dim=axis) - target.diff(dim=axis) for axis in (-1, -2))
        total = total + (weight[..., 1:] * across.abs()).mean() + (weight[..., 1:, :] * down.abs()).mean()
    return total


def losses(model: Renderer, batch: Batch) -> dict[str, Tensor]:
    top, left, height, width = batch.part
    with torch.no_grad():
        shapes = batch.shapes + model.shapes.spread * batch.strange
        portrait = replace(model.see(batch.portraits), shape=shapes)
        pixels = (..., slice(SHRINK * top, SHRINK * (top + height)), slice(SHRINK * left, SHRINK * (left + width)))
        target = batch.frames[pixels].contiguous()
        wanted, _ = model.codes.encode(target)
    each = portrait.repeated(FRAMES)
    rest, posed = (
        some.window(*batch.part) for some in (model.at_rest(portrait), model.posed(each, batch.coefficients))
    )
    both = Posed(
        *(
            together(getattr(rest, name), getattr(posed, name))
            for name in ("source", "head", "came", "sketch", "hidden", "at", "pose")
        )
    )
    level = batch.sigma.repeat_interleave(FRAMES)
    wide = level[:, None, None, None]
    noisy = (1 - wide) * posed.source + wide * batch.noise.repeat_interleave(FRAMES, 0)
    see = attention(height // PATCH, width // PATCH, model.size.dit.head_dim)
    x, sigma = together(rest.source, noisy), together(torch.zeros_like(batch.sigma), level)
    made = model.dit(x, sigma, both, [see] * model.size.dit.layers)
    kept = torch.arange(len(x)).unflatten(0, (-1, 1 + FRAMES))[:, 1:].flatten()
    made = type(made)(made.latents[kept], made.bend[kept], made.new[kept])
    drawn = model.draw(each, posed, made)
    smooth = sum(made.bend.diff(dim=axis).abs().mean() for axis in (-1, -2))
    return {
        "picture": difference(drawn.pixels, target, emphasis(posed)),
        "latent": functional.smooth_l1_loss(made.latents, wanted, beta=0.3),
        "bend": smooth,
        "new": drawn.new.mean(),
    }


def start(model: Renderer) -> None:
    """Gives it the restyler's weights, as far as they fit."""
    codes, dit = (
        {name: value.float() for name, value in load_file(WEIGHTS / f"{part}.safetensors").items()}
        for part in ("autoencoder", "dit")
    )
    model.codes.load_state_dict(codes)
    own = {name.removeprefix("decoder."): value for name, value in codes.items() if name.startswith("decoder.")}
    model.decoder.load_state_dict(own, strict=False)
    wanted = model.dit.state_dict()
    model.dit.load_state_dict({name: value for name, value in dit.items() if name in wanted}, strict=False)
    with torch.no_grad():
        for value in (model.decoder.by_style.weight, model.decoder.by_style.bias):
            value.zero_()
        # What the transformer was told when the source was to stay as it is.
        last = model.pose[-1]
        last.weight.mul_(0.5)
        last.bias.copy_(dit["share.2.weight"] @ functional.silu(dit["share.0.bias"]) + dit["share.2.bias"])


def mean(some: Sequence[Tensor | None]) -> Tensor | None:
    """Of gradients."""
    found = [gradient for gradient in some if gradient is not None]
    return torch.stack(found).sum(0) / len(some) if found else None


def means(figures: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in figures]).mean() for name in figures[0]}


class Training(Run):
    """With a short warm-up, and AdamW alone: Muon works in bfloat16, which few processors are quick at."""

    def _load(self) -> None:
        self.optimisers = [torch.optim.AdamW(self.trained, lr=self._rate, weight_decay=1e-4, betas=(0.9, 0.99))]
        super()._load()

    @property
    def rate(self) -> float:
        return self._rate * min(1.0, (self.step + 1) / 40) * (0.03 + 0.485 * (1 + math.cos(math.pi * self.share)))


@torch.no_grad()
def held_out(model: Renderer, files: Files) -> dict[str, float]:
    """PSNR in dB of whole pictures of characters that were never trained on, over all and around the mouth."""
    draw = np.random.default_rng(1)
    errors, mouths = [], []
    for file in files.files[:8]:
        batch = Batch([(read(file), 0)], (0, 0, _CELLS, _CELLS), draw)
        drawn = _shown(model, batch)
        off = (drawn - batch.frames).square()
        errors.append(float(off.mean()))
        mouths.append(float(off[:, :, 146:182, 100:156].mean()))
    psnr, mouth = (10 * np.log10(4 / np.mean(some)) for some in (errors, mouths))
    return {"psnr": round(float(psnr), 2), "psnr_mouth": round(float(mouth), 2)}


def _shown(model: Renderer, batch: Batch) -> Tensor:
    stream = PortraitStream(model, batch.portraits[0])
    return torch.stack([to_tensor(stream.draw(row.numpy())) for row in batch.coefficients])


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the renderer of the embedded avatar.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=1)
    parser.add_argument("--begin", type=Path, help="a checkpoint whose weights are taken as far as they fit")
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=200, help="steps from one line of the log to the next")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Renderer()
    start(model)
    model.shapes.load_state_dict(torch.load(given.out / "shape.pt", weights_only=True))
    if given.begin:
        wanted, held = model.state_dict(), torch.load(given.begin, weights_only=True)["averaged"]
        fits = {k: v for k, v in held.items() if k in wanted and v.shape == wanted[k].shape}
        model.load_state_dict(fits, strict=False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Training(given.out, model, rate=given.rate, hours=given.hours, keep=0.99)
    train, test = Files(given.data, held_out=False), Files(given.data, held_out=True)
    test.pick(np.random.default_rng(0))
    batches = ahead(train.batch, seed=run.step)

    def learnt(batch: Batch) -> tuple[Sequence[Tensor | None], dict[str, Tensor]]:
        torch.set_num_threads(1)
        figures = losses(model, batch)
        loss = torch.stack([_WEIGHTS[name] * figure for name, figure in figures.items()]).sum()
        found = torch.autograd.grad(loss, run.trained, allow_unused=True)
        return found, {name: figure.detach() for name, figure in figures.items()}

    # A batch on each core: many small operations leave cores idle that have one in common.
    with ThreadPoolExecutor(given.threads) as threads:
        while not run.over:
            gradients, figures = zip(*threads.map(learnt, islice(batches, given.threads)), strict=True)
            run.follow([mean(some) for some in zip(*gradients, strict=True)], **means(figures))
            run.save()
            if run.step % given.every == 0:
                kept = {name: value.clone() for name, value in model.state_dict().items()}
                model.load_state_dict(run.averaged)
                run.note(**held_out(model, test))
                model.load_state_dict(kept)
    run.save(every=0)


if __name__ == "__main__":
    main()
