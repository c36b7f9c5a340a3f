"""How many frames a filter is given at a time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from streamfx.diffusion.slo import fit, judge, plan

_SAMPLES = 4
_WORTHWHILE = 0.8


class Batcher:
    """Finds the block size with which a filter keeps up and its results are least late, by trying.

    A call has a cost of its own and one for each frame; frames that share a call share the first, and wait for each
    other. It begins with the smallest block, takes the next larger one while calls take longer than blocks last, and
    then settles for the best of those it has measured (``diffusion.slo``).

    ``sizes``: block sizes the filter takes. ``fps``: frames per second. ``budget``: seconds from capture to output.
    """

    def __init__(self, sizes: Sequence[int], fps: float, budget: float) -> None:
        self._sizes = sorted(sizes)
        self._fps = fps
        self._budget = budget
        self._seconds: dict[int, list[float]] = {}
        self.size = self._sizes[0]
        self.settled = len(self._sizes) == 1

    def explore(self) -> None:
        """Begins anew: what calls cost has changed."""
        self._seconds.clear()
        self.size = self._sizes[0]
        self.settled = len(self._sizes) == 1

    def measured(self, frames: int, seconds: float) -> None:
        """Takes note of what a block of ``frames`` cost; perhaps ``size`` is another one then."""
        if self.settled or frames not in self._sizes:
            return
        samples = self._seconds.setdefault(frames, [])
        samples.append(seconds)
        if frames != self.size or len(samples) < _SAMPLES:
            return
        # The first call at a size may choose its kernels.
        costs = {size: statistics.median(some[1:]) for size, some in self._seconds.items() if len(some) >= _SAMPLES}
        keeps_up = judge(fit([(frames, costs[frames])]), frames, 1, self._fps, self._budget).keeps_up
        larger = [size for size in self._sizes if size > frames]
        if larger and not keeps_up:
            self.size = larger[0]
            return
        best = plan(fit(costs.items()), self._fps, self._budget, list(costs), most_steps=1)
        smallest = self._sizes[0]
        # What keeps up with nothing is not worth waiting for either, but for a real gain.
        gains = costs[best.frames] / best.frames < _WORTHWHILE * costs[smallest] / smallest
        self.size = best.frames if best.keeps_up or gains else smallest
        self.settled = True
