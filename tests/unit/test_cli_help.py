"""What can be asked without running anything: help, version, the filters, the state of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment, streamfx

HEAVY = ("torch", "av", "cv2", "numpy", "fastapi", "diffusers", "huggingface_hub")


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded once ``code`` has run in a fresh interpreter."""
    program = (
        f"import json, sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize(
    "code",
    [
        "import streamfx",
        "from streamfx.cli import main; sys.argv = ['streamfx', '--help']; main()",
        "from streamfx.cli import main; sys.argv = ['streamfx', '--version']; main()",
        "from streamfx.cli import main; sys.argv = ['streamfx', 'run', '--help']; main()",
        "from streamfx.cli import main; sys.argv = ['streamfx', 'models', '--help']; main()",
        "from streamfx.cli import main; sys.argv = ['streamfx', 'models']; main()",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_the_pipeline_needs_no_torch() -> None:
    modules = loaded_after("import streamfx.pipeline.session, streamfx.cli.run")
    assert "numpy" in modules, "what is loaded is told truly"
    assert "torch" not in modules


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str) -> None:
    answer = streamfx(flag)
    assert answer.code == 0
    for command in ("run", "filters", "models", "compile", "engines", "devices", "doctor", "--version"):
        assert command in answer.out


def test_help_of_run() -> None:
    answer = streamfx("run", "--help")
    assert answer.code == 0
    for flag in (
        "--filter",
        "--set",
        "--config",
        "--fps",
        "--size",
        "--overwrite",
        "--stats-json",
        "--log-level",
        "--engine",
    ):
        assert flag in answer.out
    assert "[b]" not in answer.out


def test_no_command_shows_the_help() -> None:
    answer = streamfx()
    assert "Usage" in answer.out + answer.err
    assert "Traceback" not in answer.err


def test_unknown_command() -> None:
    answer = streamfx("rnu")
    assert answer.code == 2
    assert "rnu" in answer.err


def test_version() -> None:
    from streamfx import __version__

    answer = streamfx("--version")
    assert (answer.code, answer.out) == (0, f"streamfx {__version__}\n")


FILTERS = """
from enum import Enum
from typing import Literal

from pydantic import Field

from streamfx.filters import Filter, FilterInfo, Params


class Mood(Enum):
    CALM = "calm"
    WILD = "wild"


class TintParams(Params):
    strength: float = Field(0.6, ge=0, le=1, description="how much")
    steps: int = Field(4, gt=0, lt=9)
    at_least: int = Field(4, ge=2)
    maybe: int | None = Field(None, ge=0, le=7)
    mode: Literal["soft", "hard"] = "soft"
    mood: Mood = Mood.CALM
    bold: bool = False
    words: str = "a [b]nice[/b] colour"


class Tint(Filter[TintParams]):
    name = "tint"
    info = FilterInfo(summary="Gives a [tint].", block=2, sizes=((64, 64), (128, 128)))

    def process(self, block, params):
        return block


class Bare(Filter[Params]):
    name = "bare"

    def process(self, block, params):
        return block
"""


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """The environment in which three third-party filters are installed, two of them broken."""
    (tmp_path / "their_filters.py").write_text(FILTERS)
    (tmp_path / "broken_filter.py").write_text("raise RuntimeError('half\\ninstalled [/b]')\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[streamfx.filters]\ntint = their_filters:Tint\nbare = their_filters:Bare\n"
        "aaa-broken = broken_filter:Broken\nzzz-gone = their_filters:Gone\n"
    )
    return environment(PYTHONPATH=str(tmp_path))


def test_filters(plugins: dict[str, str]) -> None:
    answer = streamfx("filters", env=plugins)
    assert (answer.code, answer.err) == (0, "")
    lines = {line.split()[0]: line for line in answer.out.splitlines() if line.strip()}
    assert "Gives a [tint]." in lines["tint"]
    assert "broken:" in lines["aaa-broken"]
    assert "RuntimeError: half" in lines["aaa-broken"]
    assert "broken:" in lines["zzz-gone"]
    assert "bare" in lines
    assert "passthrough" in lines


def test_one_filter(plugins: dict[str, str]) -> None:
    answer = streamfx("filters", "tint", env=plugins)
    assert (answer.code, answer.err) == (0, "")
    lines = {line.split()[0]: " ".join(line.split()) for line in answer.out.splitlines() if line.strip()}
    assert "2 frames at a time; 64x64, 128x128" in answer.out
    assert lines["strength"] == "strength 0.6 0 … 1 how much"
    assert lines["steps"] == "steps 4 > 0, < 9"
    assert lines["at_least"] == "at_least 4 from 2"
    assert "0 … 7" in lines["maybe"]
    assert "soft, hard" in lines["mode"]
    assert "calm, wild" in lines["mood"]
    assert "true, false" in lines["bold"]
    assert "a [b]nice[/b] colour" in lines["words"]


def test_filter_without_parameters(plugins: dict[str, str]) -> None:
    answer = streamfx("filters", "bare", env=plugins)
    assert answer.code == 0
    assert "no parameters" in answer.out


def test_filter_by_its_module(plugins: dict[str, str]) -> None:
    assert "strength" in streamfx("filters", "their_filters:Tint", env=plugins).out


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("tnit", 2, "did you mean 'tint'"), ("aaa-broken", 1, "RuntimeError"), ("their_filters:Mood", 1, "not a filter")],
)
def test_bad_filter(plugins: dict[str, str], name: str, code: int, says: str) -> None:
    answer = streamfx("filters", name, env=plugins)
    assert answer.code == code
    assert answer.err.startswith("streamfx: ")
    assert len(answer.err.splitlines()) == 1
    assert says in answer.err


def test_doctor(plugins: dict[str, str]) -> None:
    answer = streamfx("doctor", env=plugins)
    assert (answer.code, answer.err) == (0, "")
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert any(line.startswith("ok libx264") for line in lines)
    assert any(line.startswith("ok aac") for line in lines)
    assert any("aaa-broken" in line and "RuntimeError" in line for line in lines)
    assert any(line.startswith("ok tint") and "[tint]" in line for line in lines)
    assert any("torch" in line for line in lines)


def test_models(tmp_path: Path) -> None:
    answer = streamfx("models", env=environment(STREAMFX_MODELS=str(tmp_path)))
    assert (answer.code, answer.err) == (0, "")
    lines = {line.split()[0]: " ".join(line.split()) for line in answer.out.splitlines() if line.strip()}
    assert "2.4 GB 4 GB see its page" in lines["sd-turbo"]
    assert "10 MB 500 MB MIT" in lines["taesd"]
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_help_of_models() -> None:
    answer = streamfx("models", "--help")
    assert answer.code == 0
    for command in ("show", "pull"):
        assert command in answer.out


def test_one_model() -> None:
    answer = streamfx("models", "show", "sd-turbo")
    assert (answer.code, answer.err) == (0, "")
    lines = {line.split()[0]: " ".join(line.split()) for line in answer.out.splitlines() if line.strip()}
    assert lines["from"] == "from https://huggingface.co/stabilityai/sd-turbo"
    assert lines["needs"] == "needs taesd"


@pytest.mark.parametrize("command", ["show", "pull"])
@pytest.mark.parametrize(("name", "says"), [("sd-turob", "did you mean 'sd-turbo'"), ("?", "`streamfx models` lists")])
def test_bad_model(command: str, name: str, says: str) -> None:
    answer = streamfx("models", command, name)
    assert answer.code == 2
    assert answer.err.startswith("streamfx: ")
    assert len(answer.err.splitlines()) == 1
    assert says in answer.err
