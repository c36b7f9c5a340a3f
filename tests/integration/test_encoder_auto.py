"""``--encoder auto``: with whatever there is, the file plays."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from streamfx.media.hardware import likely
from tests.support import BUNNY, look_into, streamfx

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("source", [str(BUNNY), "testpattern://?size=320x180&fps=25&duration=2"])
def test_auto_writes_a_playable_file(tmp_path: Path, source: str) -> None:
    out, stats = tmp_path / "out.mp4", tmp_path / "stats.json"
    answer = streamfx("run", source, out, "--size", "320x180", "--encoder", "auto", "--stats-json", stats)
    assert answer.code == 0, answer.err
    output = json.loads(stats.read_text())["outputs"][0]
    assert output["encoder_failures"] == 0
    if not likely():
        assert output["encoder"] == "libx264"
    contents = look_into(out)
    assert contents.size == (320, 180)
    assert len(contents.video) == output["sent"] >= 45
    said = subprocess.run(["ffmpeg", "-v", "error", "-i", out, "-f", "null", "-"], capture_output=True, check=True)
    assert said.stderr == b""
