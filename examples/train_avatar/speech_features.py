"""Makes what the network is trained on: pieces of the speech after rooms, noise and microphones, as log-mel powers.

    python speech_features.py DATA --copies 3

Every copy has all of the training speech once, cut elsewhere and degraded otherwise: ``DATA/train/copy-N.npz``. Copies
that are there are not made again.
"""

from __future__ import annotations

import argparse
import multiprocessing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from speech_augment import Augment
from speech_data import SEED, Part, load

from streamfx.models.avatar import logmel
from streamfx.models.avatar.speech import AHEAD, FRAMES, Speech

ROWS, BATCH = 150, 16


class Copies(NamedTuple):
    decibels: NDArray[np.float16]
    """``(K, past + 4 * ROWS, 64)``: mel powers, whatever the level."""
    begins: NDArray[np.int64]
    """``(K,)``: the first row of each piece."""
    none: NDArray[np.bool_]
    """``(K,)``: there is no speech in it."""


def piece(part: Part, row: int, count: int, past: int) -> NDArray[np.float32]:
    """The samples that ``count`` rows from ``row`` on ask for, ``(N,)``; silence before the first."""
    begin = (FRAMES * row + AHEAD + 1 - FRAMES - past) * logmel.HOP
    end = begin + (past + FRAMES * count - 1) * logmel.HOP + logmel.WINDOW
    samples = part.audio[max(0, begin) : end].astype(np.float32) / 32768
    return np.pad(samples, (max(0, -begin), end - max(0, begin) - len(samples)))


def degraded(task: tuple[int, list[int]], folder: Path) -> Copies:
    seed, begins = task
    torch.set_num_threads(1)
    part, past = load(folder), Speech().past
    clean = torch.from_numpy(np.stack([piece(part, row, ROWS, past) for row in begins]))
    samples, none = Augment(seed).degrade(clean)
    decibels = 10 * torch.log10(logmel.powers(samples) + 1e-13)
    return Copies(decibels.half().numpy(), np.array(begins), none.numpy())


def make(folder: Path, count: int) -> None:
    """The copies of ``folder``'s speech that are not there yet, by all cores."""
    rows = len(np.load(folder / "rows.npy", mmap_mode="r"))
    for at in range(count):
        if (folder / f"copy-{at}.npz").exists():
            continue
        draw = np.random.default_rng((SEED, at))
        begins = np.arange(int(draw.integers(ROWS)), rows - ROWS - 3, ROWS)
        draw.shuffle(begins)
        tasks = [
            (at * 100_000 + first, begins[first : first + BATCH].tolist()) for first in range(0, len(begins), BATCH)
        ]
        with multiprocessing.get_context("spawn").Pool() as pool:
            made = list(pool.imap(partial(degraded, folder=folder), tasks))
        joined = {name: np.concatenate([getattr(some, name) for some in made]) for name in Copies._fields}
        with (folder / "part").open("wb") as file:
            np.savez(file, **joined)
        (folder / "part").rename(folder / f"copy-{at}.npz")
        print(f"copy {at}: {len(joined['begins'])} pieces", flush=True)


def copies(folder: Path) -> Copies:
    """All that are there."""
    found = [np.load(path) for path in sorted(folder.glob("copy-*.npz"))]
    if not found:
        raise FileNotFoundError(f"{folder} has no copies; run speech_features.py first")
    return Copies(*(np.concatenate([one[name] for one in found]) for name in Copies._fields))


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes degraded copies of the training speech.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--copies", type=int, default=3)
    given = parser.parse_args()
    make(given.data / "train", given.copies)


if __name__ == "__main__":
    main()
