"""Puts a trained renderer into the package, measures it on characters that it has never seen, and shows it beside them.

    python renderer_figures.py export CHECKPOINT [--folder FOLDER]
    python renderer_figures.py sheet SHEET.png [--checkpoint CHECKPOINT]
    python renderer_figures.py measure [--checkpoint CHECKPOINT] [--frames 3000]

Without a checkpoint it is the renderer in the package.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from renderer_clips import AT, HELD_OUT, SIZE
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, FPS
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.idle import Idle
from streamfx.models.avatar.renderer import Renderer
from streamfx.models.avatar.renderer_load import FILE, SHARED, WEIGHTS, renderer
from streamfx.models.avatar.renderer_stream import PortraitStream
from streamfx.models.avatar.visemes import VISEMES, trajectories
from streamfx.models.tiny import load as tiny

Pixels = NDArray[np.uint8]

POSES: tuple[Mapping[str, float], ...] = (
    {"jaw_open": 0.9},
    {"jaw_open": 0.5, "lips_wide": 0.6, "yaw": 0.3},
    {"lips_round": 1, "jaw_open": 0.3},
    {"lips_press": 1, "blink_left": 0.5, "blink_right": 0.5},
    {"blink_left": 1, "blink_right": 1, "teeth": 0.9, "lips_wide": 0.4},
    {"yaw": -0.5, "gaze_x": 0.5, "smile": 0.8},
    {"pitch": 0.4, "roll": 0.4, "brow_up": 1, "tongue_up": 0.9, "jaw_open": 0.22},
)
MOUTH_BOX = slice(144, 194), slice(98, 158)
EYE_BOX = slice(96, 138), slice(80, 176)
"""Rows and columns, of faces that look ahead."""
_SECONDS = 4
_EVERY = 250


def row(named: Mapping[str, float]) -> NDArray[np.float32]:
    found = np.zeros(len(COEFFICIENTS), np.float32)
    for name, value in named.items():
        found[AT[name]] = value
    return found


def speaking(seed: int, motion: float = 1.0) -> Iterator[NDArray[np.float32]]:
    """Rows of a face that speaks sounds by chance, and never ends."""
    draw, idle, n = np.random.default_rng(seed), Idle(seed), 0
    while True:
        ends = np.cumsum(draw.uniform(0.06, 0.22, 200))
        begins = np.concatenate([[0.0], ends[:-1]])
        names = (VISEMES[int(which)] for which in draw.integers(0, len(VISEMES), len(ends)))
        for mouth in trajectories(list(zip(begins, ends, names, strict=True)), float(ends[-1])):
            yield np.concatenate([mouth, idle.pose(n / FPS, 0.6, True, motion)])
            n += 1


def tensor(picture: Pixels) -> Tensor:
    """``(3, S, S)`` in [-1, 1]."""
    return torch.from_numpy(picture.copy()).movedim(-1, 0).float() / 127.5 - 1


def network(checkpoint: Path | None) -> Renderer:
    if checkpoint is None:
        return renderer()
    model = Renderer()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["averaged"])
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def export(checkpoint: Path, folder: Path) -> None:
    """Half precision; what is the restyler's is not written."""
    state = torch.load(checkpoint, weights_only=True)["averaged"]
    codes = load_file(tiny.WEIGHTS / "autoencoder.safetensors")
    for name, value in codes.items():
        if not torch.equal(state[SHARED + name], value.float()):
            raise ValueError(f"{name} is no longer what the restyler has")
    folder.mkdir(parents=True, exist_ok=True)
    own = {name: value.half().contiguous() for name, value in state.items() if not name.startswith(SHARED)}
    save_file(own, folder / FILE)
    print(f"{sum(x.numel() for x in own.values()) / 1e6:.2f} M weights, {(folder / FILE).stat().st_size / 1e6:.1f} MB")


def sheet(model: Renderer, out: Path, seeds: list[int]) -> None:
    """For each character a row of drawn poses and one of rendered ones, after the reference."""
    rows = []
    for seed in seeds:
        painter = Painter(Character.of(seed), SIZE)
        reference = painter.draw(row({}))
        stream = PortraitStream(model, tensor(reference))
        poses = [row(pose) for pose in POSES]
        rows += [np.hstack([reference, *map(some, poses)]) for some in (painter.draw, stream.draw)]
    cv2.imwrite(str(out), np.vstack(rows)[..., ::-1])


def psnr(ours: Pixels, theirs: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(1e-3, np.square(ours.astype(float) - theirs).mean())))


def ssim(ours: Pixels, theirs: Pixels) -> float:
    """Of brightness, over windows of 7 pixels."""
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (ours, theirs))

    def near(some: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = cv2.blur(some, (7, 7))
        return found

    mx, my = near(x), near(y)
    vx, vy, both = near(x * x) - mx * mx, near(y * y) - my * my, near(x * y) - mx * my
    found = (2 * mx * my + 6.5) * (2 * both + 58.5) / ((mx**2 + my**2 + 6.5) * (vx + vy + 58.5))
    return float(found[3:-3, 3:-3].mean())


def dark(picture: Pixels, box: tuple[slice, slice], still: Pixels) -> float:
    """How much of a box is clearly darker than at rest."""
    before, now = (cv2.cvtColor(some[box], cv2.COLOR_RGB2GRAY).astype(int) for some in (still, picture))
    return float((before - now > 12).mean())


def apart(model: Renderer, ours: Pixels, theirs: Pixels) -> float:
    """Distance of latents."""
    with torch.inference_mode():
        a, b = (model.see(tensor(some)[None]).latents for some in (ours, theirs))
    return float((a - b).abs().mean())


def likeness(model: Renderer, seeds: list[int]) -> dict[str, float]:
    """Against drawn truth, over speech; ``identity``: distance to the same character, in parts of that between two."""
    figures: dict[str, list[float]] = {}
    before: Pixels | None = None
    for seed in seeds:
        painter = Painter(Character.of(seed), SIZE)
        still = painter.draw(row({}))
        stream = PortraitStream(model, tensor(still))
        truth, found = {"jaw": [], "lids": []}, {"jaw": [], "lids": []}  # type: ignore[var-annotated]
        told: dict[str, list[float]] = {"jaw": [], "lids": []}
        for n, pose in zip(range(_SECONDS * FPS), speaking(seed), strict=False):
            if n % 2:
                continue
            theirs, ours = painter.draw(pose), stream.draw(pose)
            for box, name in (((slice(None), slice(None)), ""), (MOUTH_BOX, "_mouth"), (EYE_BOX, "_eyes")):
                figures.setdefault("psnr" + name, []).append(psnr(ours[box], theirs[box]))
                figures.setdefault("ssim" + name, []).append(ssim(ours[box], theirs[box]))
            told["jaw"].append(float(pose[AT["jaw_open"]]))
            for seen, picture in ((truth, theirs), (found, ours)):
                seen["jaw"].append(dark(picture, MOUTH_BOX, still))
        own = apart(model, ours, theirs)
        if before is not None:
            figures.setdefault("identity", []).append(own / apart(model, before, theirs))
        before = theirs
        lids = np.linspace(0, 1, 9)
        for shut in lids:
            pose = row({"blink_left": shut, "blink_right": shut})
            for seen, picture in ((truth, painter.draw(pose)), (found, stream.draw(pose))):
                off = picture[EYE_BOX].astype(float) - still[EYE_BOX]
                seen["lids"].append(float(np.abs(off).mean()))
        for name, wanted in truth.items():
            figures.setdefault(f"{name}_to_truth", []).append(float(np.corrcoef(wanted, found[name])[0, 1]))
            figures.setdefault(f"{name}_share", []).append(float(np.mean(found[name]) / np.mean(wanted)))
        figures.setdefault("jaw_to_told", []).append(float(np.corrcoef(told["jaw"], found["jaw"])[0, 1]))
        figures.setdefault("jaw_to_told_truth", []).append(float(np.corrcoef(told["jaw"], truth["jaw"])[0, 1]))
    return {name: round(float(np.mean(some)), 3) for name, some in figures.items()}


def drift(model: Renderer, seed: int, frames: int, sinks: int) -> dict[str, list[float]]:
    """A pose at rest and with an open mouth, drawn again and again amid speech: PSNR to the truth in dB, and the
    distance in levels to what it was the first time."""
    painter = Painter(Character.of(seed), SIZE)
    asked = [row({}), row({"jaw_open": 0.7})]
    stream, truth = PortraitStream(model, tensor(painter.draw(asked[0])), sinks), [painter.draw(one) for one in asked]
    found: dict[str, list[float]] = {"psnr": [], "levels": []}
    first: list[Pixels] = []
    for n, pose in zip(range(frames + 1), speaking(seed), strict=False):
        stream.draw(pose)
        if n % _EVERY == _EVERY - 1 or n == 9:
            ours = [stream.draw(one) for one in asked]
            first = first or ours
            found["psnr"].append(round(float(np.mean([psnr(a, b) for a, b in zip(ours, truth, strict=True)])), 2))
            off = [np.abs(a.astype(float) - b).mean() for a, b in zip(ours, first, strict=True)]
            found["levels"].append(round(float(np.mean(off)), 3))
    return found


def speed(model: Renderer, seed: int) -> float:
    """Pictures a second."""
    stream = PortraitStream(model, tensor(Painter(Character.of(seed), SIZE).draw(row({}))))
    poses = [pose for _, pose in zip(range(60), speaking(seed), strict=False)]
    for pose in poses[:10]:
        stream.draw(pose)
    began = time.perf_counter()
    for pose in poses[10:]:
        stream.draw(pose)
    return round(50 / (time.perf_counter() - began), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports, shows and measures the renderer.")
    parser.add_argument("what", choices=("export", "sheet", "measure"))
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, default=WEIGHTS)
    parser.add_argument("--characters", type=int, default=12)
    parser.add_argument("--first", type=int, default=HELD_OUT)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = list(range(given.first, given.first + given.characters))
    if given.what == "export":
        export(given.path, given.folder)
        return
    model = network(given.checkpoint)
    if given.what == "sheet":
        sheet(model, given.path, seeds)
        return
    print(json.dumps({"speed": speed(model, seeds[0])}), flush=True)
    print(json.dumps({"likeness": likeness(model, seeds)}), flush=True)
    for sinks in (1, 0):
        print(json.dumps({"sinks": sinks, "drift": drift(model, seeds[0], given.frames, sinks)}), flush=True)


if __name__ == "__main__":
    main()
