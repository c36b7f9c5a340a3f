"""Trains the network that hears speech and tells the mouth.

    python train_speech.py DATA OUT --minutes 40        # after speech_data.py and speech_features.py

Broken off, it goes on where it was. OUT gets ``log.jsonl``, ``checkpoint.pt`` and, after every look at the held-out
voices, ``speech.safetensors`` of the averaged weights in half precision.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from speech_augment import Augment, features_of
from speech_data import Part, load
from speech_features import ROWS, Copies, copies, piece
from torch import Tensor, nn
from torch.nn import functional

from streamfx.models.avatar import logmel
from streamfx.models.avatar.coefficients import MOUTH
from streamfx.models.avatar.speech import Heard, Speech

BATCH = 10
HELD_OUT = 16
"""Pieces that are looked at, three times."""

RATE_OF_LEARNING, DECAY, KEEP = 2e-3, 0.02, 0.995
WEIGHTS = (1.5, 1.0, 1.0, 2.0, 1.5, 0.8, 1.0)
"""Of each coefficient, in the order of ``MOUTH``: the jaw and the lips are seen most."""

_JAW, _PRESS, _TUCK = (MOUTH.index(name) for name in ("jaw_open", "lips_press", "lip_tuck"))


class Batch(NamedTuple):
    features: Tensor
    """``(B, past + 4 M, 64)``."""
    rows: Tensor
    """``(B, M, 7)``."""
    visemes: Tensor
    """``(B, M)``."""


class Losses(NamedTuple):
    visemes: Tensor
    mouth: Tensor
    velocity: Tensor
    closures: Tensor

    @property
    def total(self) -> Tensor:
        return 0.3 * self.visemes + 4 * self.mouth + 2 * self.velocity + 0.5 * self.closures


def batch(made: Copies, part: Part, augment: Augment, picks: NDArray[np.int64]) -> Batch:
    """The pieces ``picks``, told by another throat every time."""
    features = augment.vary(10 ** (torch.from_numpy(made.decibels[picks].astype(np.float32)) / 10))
    none = torch.from_numpy(made.none[picks])
    rows = made.begins[picks][:, None] + np.arange(ROWS)
    mouths, visemes = torch.from_numpy(part.rows[rows]).float(), torch.from_numpy(part.visemes[rows]).long()
    mouths[none], visemes[none] = 0.0, 0
    return Batch(features, mouths, visemes)


def losses(heard: Heard, wanted: Batch) -> Losses:
    weights = torch.tensor(WEIGHTS)
    away = functional.smooth_l1_loss(heard.mouth, wanted.rows, beta=0.1, reduction="none")
    sharp = functional.binary_cross_entropy(heard.mouth[..., _PRESS : _TUCK + 1], wanted.rows[..., _PRESS : _TUCK + 1])
    moves = (heard.mouth.diff(dim=1) - wanted.rows.diff(dim=1)).abs()
    shut = wanted.rows[..., _PRESS] > 0.9
    missing = functional.relu(0.9 - heard.mouth[..., _PRESS]) + functional.relu(heard.mouth[..., _JAW] - 0.15)
    return Losses(
        functional.cross_entropy(heard.visemes.flatten(0, 1), wanted.visemes.flatten(), label_smoothing=0.05),
        (away * weights).mean() + 0.15 * sharp,
        (moves * weights).mean(),
        (missing * shut).sum() / shut.sum().clamp(min=1),
    )


@torch.no_grad()
def held_out(model: Speech, part: Part) -> dict[str, float]:
    """On voices and words that were never trained on, as they are and after all that speech goes through."""
    figures: dict[str, float] = {}
    for name, augment in (("clean", None), ("rough", Augment(1))):  # the same pieces every time
        draw = np.random.default_rng(1)
        found: list[NDArray[np.float32]] = []
        rows: list[NDArray[np.float32]] = []
        right: list[float] = []
        for _ in range(3):
            begins = draw.integers(0, len(part.rows) - ROWS - 3, HELD_OUT)
            samples = torch.from_numpy(np.stack([piece(part, int(row), ROWS, model.past) for row in begins]))
            none = torch.zeros(len(samples), dtype=torch.bool)
            if augment:
                samples, none = augment.degrade(samples)
            heard = model(features_of(logmel.powers(samples)))
            kept = ~none.numpy()
            rows.append(np.stack([part.rows[row : row + ROWS] for row in begins])[kept].reshape(-1, len(MOUTH)))
            found.append(heard.mouth.numpy()[kept].reshape(-1, len(MOUTH)))
            visemes = np.stack([part.visemes[row : row + ROWS] for row in begins])
            right.append(float((heard.visemes.argmax(-1).numpy() == visemes)[kept].mean()))
        a, b = np.concatenate(found).astype(np.float64), np.concatenate(rows).astype(np.float64)
        figures[f"{name}_visemes"] = round(float(np.mean(right)), 4)
        for at in (_JAW, _PRESS):
            figures[f"{name}_{MOUTH[at]}"] = round(float(np.corrcoef(a[:, at], b[:, at])[0, 1]), 4)
    return figures


def ahead(make: Callable[[], Batch], depth: int = 3) -> Generator[Batch, None, None]:
    """What ``make`` gives, made in a thread while the last is used."""
    with ThreadPoolExecutor(1) as worker:
        waiting = deque(worker.submit(make) for _ in range(depth))
        while True:
            yield waiting.popleft().result()
            waiting.append(worker.submit(make))


class Run:
    """A training that may be broken off: step and seconds count over all runs."""

    def __init__(self, folder: Path, model: Speech, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._model, self._until = folder, model, 60 * minutes
        self._optimiser = torch.optim.AdamW(model.parameters(), RATE_OF_LEARNING, (0.9, 0.98), weight_decay=DECAY)
        self.averaged = {name: value.clone() for name, value in model.state_dict().items()}
        self.step, self._seconds, self._began = 0, 0.0, time.monotonic()
        self._sums: dict[str, list[float]] = {}
        if (folder / "checkpoint.pt").exists():
            state = torch.load(folder / "checkpoint.pt", weights_only=True)
            model.load_state_dict(state["model"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.averaged, self.step, self._seconds = state["averaged"], state["step"], state["seconds"]

    @property
    def seconds(self) -> float:
        return self._seconds + time.monotonic() - self._began

    @property
    def over(self) -> bool:
        return self.seconds > self._until

    @property
    def rate(self) -> float:
        """A warm-up, then a cosine down to a hundredth over the time there is."""
        share = min(1.0, self.seconds / self._until)
        return RATE_OF_LEARNING * min(1.0, (self.step + 1) / 200) * (0.01 + 0.495 * (1 + math.cos(math.pi * share)))

    def learn(self, found: Losses) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate
        self._optimiser.zero_grad()
        found.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        if torch.isfinite(norm):
            self._optimiser.step()
        self.step += 1
        keep = min(KEEP, self.step / (self.step + 10))
        for name, value in self._model.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)
        for name, figure in (*found._asdict().items(), ("loss", found.total)):
            self._sums.setdefault(name, []).append(float(figure.detach()))

    def look(self, part: Part) -> None:
        """Evaluates the averaged weights, logs, and writes both kinds of weights."""
        model = Speech(self._model.size).eval()
        model.load_state_dict(self.averaged)
        means = {name: round(float(np.mean(some)), 5) for name, some in self._sums.items()}
        self._sums.clear()
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), "rate": round(self.rate, 7)}
        text = json.dumps(line | means | held_out(model, part))
        with (self._folder / "log.jsonl").open("a") as log:
            log.write(text + "\n")
        print(text, flush=True)
        save_file({name: value.half().contiguous() for name, value in self.averaged.items()}, self._folder / "part")
        (self._folder / "part").rename(self._folder / "speech.safetensors")
        state = {
            "model": self._model.state_dict(),
            "averaged": self.averaged,
            "optimiser": self._optimiser.state_dict(),
        }
        torch.save(state | {"step": self.step, "seconds": self.seconds}, self._folder / "checkpoint.part")
        (self._folder / "checkpoint.part").rename(self._folder / "checkpoint.pt")


def train(data: Path, out: Path, minutes: float, every: int = 250, size: int = BATCH, steps: int | None = None) -> Run:
    """Trains for ``minutes`` in all runs together, or up to ``steps``."""
    torch.manual_seed(0)
    model = Speech()
    run = Run(out, model, minutes)
    part, tests, made = load(data / "train"), load(data / "held_out"), copies(data / "train")
    draw, augment = np.random.default_rng(run.step), Augment(run.step)
    print(f"{len(made.begins)} pieces of {ROWS} rows, from step {run.step}", flush=True)
    batches = ahead(lambda: batch(made, part, augment, draw.integers(0, len(made.begins), size)))
    with closing(batches):
        for given in batches:
            if run.over or run.step == steps:
                break
            run.learn(losses(model(given.features), given))
            if run.step % every == 0:
                run.look(tests)
    run.look(tests)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the avatar's speech network.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--every", type=int, default=250, help="steps between looks at the held-out voices")
    given = parser.parse_args()
    train(given.data, given.out, given.minutes, given.every)


if __name__ == "__main__":
    main()
