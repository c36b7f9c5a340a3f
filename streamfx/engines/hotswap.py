"""Engines for a stream that runs already: built by another process, looked at beside the stream, taken between two of
its frames.

Nobody waits: the stream goes on as it is until everything is there. A build that fails, hangs or crashes is told once,
and the stream stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from streamfx.engines.base import Engine, Part
from streamfx.engines.build import MOST_ERROR, Fit, Frames, Order, check, known
from streamfx.engines.cache import EngineCache
from streamfx.engines.recipe import Recipe

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Sequence[tuple[Tensor, ...]]]

_TIMEOUT = 1800.0
_GRACE = 2.0


class HotSwap:
    """One for a stream. ``told`` is called from a thread with what there is to say.

    The stream's thread asks between frames: ``wants_inputs``, and if so hands the inputs of a live frame over by
    ``give``; ``take``, which has the engines, once.
    """

    def __init__(
        self,
        order: Order,
        parts: Mapping[str, Part],
        told: Callable[[str], None],
        cache: EngineCache | None = None,
        frames: Frames = (),
        timeout: float = _TIMEOUT,
    ) -> None:
        self._order, self._parts, self._told = order, parts, told
        self._cache = cache or EngineCache()
        self._frames, self._timeout = frames, timeout
        self._inputs: Inputs | None = None
        self._asked, self._given, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._engines: Mapping[str, Engine] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="engines", daemon=True)
        self._thread.start()

    @property
    def wants_inputs(self) -> bool:
        """Whether the inputs of a frame are wanted, to hold the engines against torch."""
        return self._asked.is_set() and not self._given.is_set()

    def give(self, inputs: Inputs) -> None:
        """Of each part, as it was called for one frame; on the CPU."""
        self._inputs = inputs
        self._given.set()

    def take(self) -> Mapping[str, Engine] | None:
        """The engines, by part, as soon as they are ready; None before that, and ever after."""
        engines, self._engines = self._engines, None
        return engines

    def close(self) -> None:
        """Ends the build, if it is still under way."""
        self._closed.set()
        self._given.set()
        with self._lock:
            if self._process is not None:
                _end(self._process)
        self._thread.join(_GRACE)

    def _work(self) -> None:
        try:
            fit = known(self._order, self._parts, self._cache) or self._built()
            if fit is None or self._closed.is_set():
                return
            engines = fit.loaded(self._parts, self._cache, self._order.threads, self._order.device)
            if engines is None:
                raise ValueError("an engine that was just made is gone")
            for line in fit.told:
                self._told(line)
            if engines and self._live(engines, fit):
                self._engines = engines
        except Exception as error:
            if not self._closed.is_set():
                self._told(f"the stream goes on without engines: {' '.join(str(error).split())}")

    def _built(self) -> Fit | None:
        with tempfile.TemporaryDirectory(prefix="streamfx-") as folder:
            frames = None
            if len(self._frames):
                frames = str(Path(folder) / "frames.npy")
                np.save(frames, np.stack(self._frames))
            order = asdict(self._order) | {"cache": str(self._cache.folder), "frames": frames}
            answer = self._asked_for(order, Path(folder))
        if answer is None:
            return None
        if "error" in answer:
            raise ValueError(answer["error"])
        return known(self._order, self._parts, self._cache)

    def _asked_for(self, order: Mapping[str, object], folder: Path) -> Mapping[str, str] | None:
        """What the other process answers; None if this one was closed meanwhile."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        said, lamented = folder / "said", folder / "lamented"
        with self._lock, said.open("wb") as out, lamented.open("wb") as err:
            if self._closed.is_set():
                return None
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "streamfx.engines.build_process"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        try:
            # The line stays open: by its end the other process notices that this one is gone.
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.write(json.dumps(order).encode() + b"\n")
                    process.stdin.flush()
            process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise ValueError(f"building them took more than {self._timeout:.0f} s") from None
        finally:
            _end(process)
        if self._closed.is_set():
            return None
        try:
            answer: Mapping[str, str] = json.loads(said.read_bytes())
        except ValueError:
            words = lamented.read_text(errors="replace").strip().splitlines()
            cause = f": {words[-1][:300]}" if words else ""
            raise ValueError(f"the process that builds them died (exit status {process.returncode}){cause}") from None
        return answer

    def _live(self, engines: Mapping[str, Engine], fit: Fit) -> bool:
        """Whether engines compute what torch does for a frame of this very stream. Raises ``ValueError`` if not."""
        self._asked.set()
        self._given.wait()
        if self._closed.is_set() or self._inputs is None:
            return False
        for name, engine in engines.items():
            recipe = Recipe.parse(fit.engines[name][0])
            try:
                some, most = self._inputs.get(name, ()), MOST_ERROR[recipe.precision]
                check(self._parts[name], engine, some, most, self._order.device)
            except ValueError as error:
                raise ValueError(f"{name} by {recipe} on a live frame: {error}") from error
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills it, if it still runs, with all that it started, and lets go of its line."""
    with contextlib.suppress(OSError):
        if process.poll() is not None:
            pass
        elif hasattr(os, "killpg"):
            os.killpg(process.pid, 9)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
