"""Which engine is quickest here: by measurement, for no processor is like the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.engines.base import Engine, error_of

_ROUNDS, _FIRST = 7, 2


@dataclass(frozen=True, slots=True)
class Measured:
    """``milliseconds`` a call, the median; ``error``: of ``error_of``; ``reason``: why it is out, else empty."""

    name: str
    milliseconds: float = float("inf")
    error: float = float("inf")
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """``engine``: the quickest of those that are right; ``measured``: all that were looked at, quickest first."""

    engine: Engine
    measured: Sequence[Measured]

    def __str__(self) -> str:
        """What was picked, and why."""
        fine = [one for one in self.measured if not one.reason]
        told = [f"{one.name} {one.milliseconds:.1f} ms" for one in fine]
        out = [f"{one.name} {one.reason}" for one in self.measured if one.reason]
        return f"{self.engine.name} is taken ({'; '.join([*told, *out])})"


def settle(device: torch.device | str) -> None:
    """Waits for what a GPU was given to do: without that, its time would be the next one's."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def choose(
    engines: Mapping[str, Callable[[], Engine]], wanted: Sequence[Tensor], given: Sequence[Tensor], most: float = 0.05
) -> Choice:
    """Makes each of ``engines``, and measures them by turns on ``given``, which lies where they run. Right are those
    whose outputs are ``wanted``, on the CPU, but for an error of ``most``. Raises ``UsageError`` if none is."""
    made: dict[str, Engine] = {}
    errors: dict[str, float] = {}
    out: list[Measured] = []
    for name, make in engines.items():
        try:
            engine = make()
            errors[name] = error_of([x.cpu() for x in engine(*given)], wanted)
        except Exception as error:
            out.append(Measured(name, reason=f"does not run: {error}"))
            continue
        if errors[name] > most:
            out.append(Measured(name, error=errors[name], reason=f"is wrong by {errors[name]:.3g}"))
        else:
            made[name] = engine
    if not made:
        raise UsageError(f"no engine runs here: {'; '.join(f'{one.name} {one.reason}' for one in out)}")
    times: dict[str, list[float]] = {name: [] for name in made}
    for n in range(_FIRST + _ROUNDS):
        for name, engine in made.items():
            began = time.perf_counter()
            engine(*given)
            settle(given[0].device)
            if n >= _FIRST:
                times[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(some) for name, some in times.items()}
    order = sorted(medians, key=medians.__getitem__)
    measured = [Measured(name, medians[name], errors[name]) for name in order]
    return Choice(made[order[0]], [*measured, *out])
