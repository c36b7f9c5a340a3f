"""How many frames a block and how many steps a stream batch may have, so that deadlines are kept.

StreamDiffusionV2 (arXiv 2511.07399), section 3.2. A call costs an overhead and something for each row; a block of F
frames at T steps is a call of F T rows. More frames a call spread the overhead and cost waiting; more steps look better
and cost rows and lag. Pure functions of measured numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallCost:
    """Seconds a call takes: ``overhead + per_row * rows``, a row being one latent frame at one step."""

    overhead: float
    per_row: float

    def call(self, rows: int) -> float:
        return self.overhead + self.per_row * rows


@dataclass(frozen=True, slots=True)
class Plan:
    """``frames`` a block, ``steps`` of the stream batch, and what that means: ``latency`` in seconds from a frame's
    capture to its result, at worst; ``keeps_up``: whether calls are done before the next block is there; ``in_time``:
    whether the latency is within the budget as well."""

    frames: int
    steps: int
    latency: float
    keeps_up: bool
    in_time: bool


def fit(samples: Iterable[tuple[int, float]]) -> CallCost:
    """The cost that fits measured (rows, seconds) best, by least squares; neither part below 0. Raises ``ValueError``
    without a sample."""
    points = list(samples)
    if not points:
        raise ValueError("there is no measurement to fit a cost to")
    count = len(points)
    mean_rows, mean_seconds = sum(r for r, _ in points) / count, sum(s for _, s in points) / count
    spread = sum((r - mean_rows) ** 2 for r, _ in points)
    if spread == 0:  # one size only: all of it by row, which never promises too much for larger calls
        return CallCost(0.0, mean_seconds / mean_rows)
    slope = sum((r - mean_rows) * (s - mean_seconds) for r, s in points) / spread
    per_row = min(max(0.0, slope), mean_seconds / mean_rows)
    return CallCost(max(0.0, mean_seconds - per_row * mean_rows), per_row)


def judge(cost: CallCost, frames: int, steps: int, fps: float, budget: float, guard: float = 0.9) -> Plan:
    """What a block of ``frames`` at ``steps`` steps would mean for a source of ``fps`` and a latency ``budget`` in
    seconds. ``guard``: share of the time between blocks that a call may take."""
    call, period = cost.call(frames * steps), frames / fps
    # The first frame of a block waits for its last; each step but the last waits for the next block as well.
    latency = (frames - 1) / fps + call + (steps - 1) * max(call, period)
    keeps_up = call <= guard * period
    return Plan(frames, steps, latency, keeps_up, keeps_up and latency <= budget)


def plan(cost: CallCost, fps: float, budget: float, blocks: Sequence[int] = (1, 2, 4, 8), most_steps: int = 4) -> Plan:
    """The best that keeps ``budget``: the most steps, and of those the block with the least latency.

    If nothing keeps the budget, the least latency of what keeps up; if nothing keeps up, what comes nearest to it.
    Raises ``ValueError`` if there is nothing to choose from.
    """
    if not blocks or min(blocks) < 1 or most_steps < 1 or fps <= 0:
        raise ValueError("a plan needs block sizes and steps from 1 on, and a frame rate above 0")
    options = [judge(cost, frames, steps, fps, budget) for frames in blocks for steps in range(1, most_steps + 1)]
    in_time = [option for option in options if option.in_time]
    if in_time:
        return max(in_time, key=lambda option: (option.steps, -option.latency))
    keeping_up = [option for option in options if option.keeps_up]
    if keeping_up:
        return min(keeping_up, key=lambda option: option.latency)
    return min(options, key=lambda option: cost.call(option.frames * option.steps) / option.frames)


def balance(costs: Sequence[float], ranks: int, first_extra: float = 0.0, last_extra: float = 0.0) -> list[int]:
    """Cuts layers into contiguous ranges for a ring of ``ranks`` devices so that the slowest takes as little as can be.

    ``costs``: seconds of each layer. ``first_extra``, ``last_extra``: what the first rank (encoding) and the last
    (decoding) do besides. Returns how many layers each rank gets, at least one. Exact, by dynamic programming; raises
    ``ValueError`` for more ranks than layers.
    """
    layers = len(costs)
    if not 1 <= ranks <= layers:
        raise ValueError(f"{layers} layers cannot be cut into {ranks} ranges")
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[n]: the least worst time of the ranks so far, when they have the first n layers.
    best = [sums[n] + first_extra if n else float("inf") for n in range(layers + 1)]
    cuts: list[list[int]] = []
    if ranks == 1:
        return [layers]
    for rank in range(1, ranks):
        extra = last_extra if rank == ranks - 1 else 0.0
        row, came_from = [float("inf")] * (layers + 1), [0] * (layers + 1)
        for end in range(rank + 1, layers + 1):
            for start in range(rank, end):
                worst = max(best[start], sums[end] - sums[start] + extra)
                if worst < row[end]:
                    row[end], came_from[end] = worst, start
        best = row
        cuts.append(came_from)
    borders = [layers]
    for came_from in reversed(cuts):
        borders.append(came_from[borders[-1]])
    borders.append(0)
    borders.reverse()
    return [end - start for start, end in itertools.pairwise(borders)]
