"""Trains the network that tells the shape of a portrait's face, on drawn characters.

    python train_shape.py OUT --count 10000 --epochs 12

Writes ``OUT/shape.pt``, which ``train_renderer.py`` begins with, and prints how far it is from the truth on characters
that it has never seen: the root of the mean square for each number, in parts of how much people differ.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from renderer_clips import HELD_OUT, SIZE, resting
from torch import Tensor

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.renderer_shape import SHAPE, ShapeNet

_SIDE = 128
_BATCH, _TEST = 32, 400
_RATE = 2e-3


def shape_of(seed: int) -> NDArray[np.float32]:
    """The true one, ``(10,)``."""
    who = Character.of(seed)
    return np.array([getattr(who, name) for name in SHAPE], np.float32)


def portrait(seed: int) -> NDArray[np.uint8]:
    """``(128, 128, 3)``, as a reference of the renderer would be."""
    drawn = Painter(Character.of(seed), SIZE).draw(resting(np.random.default_rng([2, seed])))
    return np.asarray(cv2.resize(drawn, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))


def drawn(first: int, count: int, threads: int) -> tuple[Tensor, Tensor]:
    """Portraits ``(N, 3, 128, 128) uint8`` and their shapes ``(N, 10)``."""
    seeds = range(first, first + count)
    with ProcessPoolExecutor(threads) as processes:
        pictures = np.stack(list(processes.map(portrait, seeds, chunksize=64)))
    return torch.from_numpy(pictures).movedim(-1, 1), torch.from_numpy(np.stack([shape_of(seed) for seed in seeds]))


def pixels(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


@torch.no_grad()
def held_out(model: ShapeNet, pictures: Tensor, shapes: Tensor) -> dict[str, float]:
    off = torch.cat(
        [model.apart(model(pixels(a)), b) for a, b in zip(pictures.split(64), shapes.split(64), strict=True)]
    )
    each = off.square().mean(0).sqrt()
    return {name: round(float(value), 3) for name, value in zip(SHAPE, each, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the network that tells a face's shape.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    pictures, shapes = drawn(0, given.count, given.threads)
    test = drawn(HELD_OUT, _TEST, given.threads)
    model = ShapeNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=1e-4)
    steps = given.epochs * (given.count // _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda n: min(1, (n + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * n / steps)))
    )
    for epoch in range(given.epochs):
        losses = []
        for which in torch.randperm(given.count).split(_BATCH)[: given.count // _BATCH]:
            seen, true = pixels(pictures[which]), shapes[which]
            # Faces have two alike sides; light and colours come as they may.
            turned = torch.where(torch.rand(len(seen), 1, 1, 1) < 0.5, seen.flip(-1), seen)
            gain, lift = 1 + 0.1 * torch.randn(len(seen), 3, 1, 1), 0.05 * torch.randn(len(seen), 3, 1, 1)
            loss = model.apart(model(turned * gain + lift), true).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(
            json.dumps({"epoch": epoch, "loss": round(float(np.mean(losses)), 4)} | held_out(model, *test)), flush=True
        )
        torch.save(model.state_dict(), given.out / "shape.pt")


if __name__ == "__main__":
    main()
