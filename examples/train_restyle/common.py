"""What both trainings share: batches made beside the training, checkpoints that go on, a log of lines of JSON."""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def to_tensor(frames: Any) -> Tensor:
    """``(…, H, W, 3) uint8`` to ``(…, 3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).movedim(-1, -3).float() / 127.5 - 1


def ahead(make: Callable[[np.random.Generator], Any], seed: int, depth: int = 4) -> Iterator[Any]:
    """What ``make`` gives, made in a thread while the last is used. The same for a seed."""
    waiting: queue.Queue[Any] = queue.Queue(depth)
    draw = np.random.default_rng(seed)

    def work() -> None:
        while True:
            waiting.put(make(draw))

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield waiting.get()


class Run:
    """A training that may be broken off at any time: ``step`` counts over all runs.

    The checkpoint is written whole and then renamed. Averaged weights (EMA) are what is evaluated and kept.
    """

    def __init__(self, folder: Path, model: nn.Module, rate: float, hours: float, keep: float = 0.999) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._model, self._rate = folder, model, rate
        self._keep = keep
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimisers = _optimisers(model, rate)
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.step = 0
        self._seconds = 0.0
        self._began = self._saved = time.monotonic()
        self._until = hours * 3600
        self._sums: dict[str, list[float]] = {}
        self._load()

    @property
    def seconds(self) -> float:
        """Trained so far, in all runs."""
        return self._seconds + time.monotonic() - self._began

    @property
    def over(self) -> bool:
        return self.seconds > self._until

    @property
    def share(self) -> float:
        """Of the time there is."""
        return min(1.0, self.seconds / self._until)

    @property
    def rate(self) -> float:
        """A warm-up of 500 steps, then a cosine down to a twentieth over the time there is."""
        return self._rate * min(1.0, (self.step + 1) / 500) * (0.05 + 0.475 * (1 + math.cos(math.pi * self.share)))

    def learn(self, loss: Tensor, **figures: Tensor) -> None:
        """One step of the optimisers."""
        self.follow(torch.autograd.grad(loss, self.trained, allow_unused=True), loss=loss, **figures)

    def follow(self, gradients: Sequence[Tensor | None], **figures: Tensor) -> None:
        """One step of the optimisers by the gradients of ``trained``."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate
        for parameter, found in zip(self.trained, gradients, strict=True):
            parameter.grad = found
        norm = float(nn.utils.clip_grad_norm_(self.trained, 1.0))
        if np.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        keep = min(self._keep, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.averaged[name].lerp_(value, 1 - keep)
        for name, figure in figures.items():
            self._sums.setdefault(name, []).append(float(figure.detach()))
        self._sums.setdefault("norm", []).append(norm)

    def note(self, **figures: float) -> None:
        """Writes a line of means since the last one."""
        means = {name: round(float(np.mean(some)), 5) for name, some in self._sums.items()}
        self._sums.clear()
        line = {
            "step": self.step,
            "hours": round(self.seconds / 3600, 3),
            "rate": round(self.rate, 7),
            **means,
            **figures,
        }
        with (self._folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def save(self, every: float = 120.0) -> None:
        """Writes the checkpoint if the last one is old."""
        if time.monotonic() - self._saved < every:
            return
        self._saved = time.monotonic()
        part = self._folder / "checkpoint.part"
        state = {"model": self._model.state_dict(), "averaged": self.averaged}
        optimisers = [optimiser.state_dict() for optimiser in self.optimisers]
        torch.save(state | {"optimisers": optimisers, "step": self.step, "seconds": self.seconds}, part)
        part.rename(self._folder / "checkpoint.pt")

    def _load(self) -> None:
        file = self._folder / "checkpoint.pt"
        if not file.exists():
            return
        state = torch.load(file, weights_only=True)
        self._model.load_state_dict(state["model"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.averaged = state["averaged"]
        self.step, self._seconds = state["step"], state["seconds"]
        print(f"goes on at step {self.step}, hour {self._seconds / 3600:.2f}", flush=True)


def _optimisers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (K. Jordan, 2024) for the matrices that a transformer's tokens pass through, AdamW for all else."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    apart = ("modulation", "gate")
    passed = [
        name for name, p in trained.items() if p.ndim == 2 and "blocks." in name and not any(x in name for x in apart)
    ]
    inner, others = [trained[name] for name in passed], [p for name, p in trained.items() if name not in passed]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, weight_decay=1e-4, betas=(0.9, 0.99))]
    if inner:
        found.append(torch.optim.Muon(inner, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return found
