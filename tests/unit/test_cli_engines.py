"""``streamfx compile`` and ``streamfx engines``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamfx.cli import main
from streamfx.engines.cache import EngineCache

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The command's exit code, and what it printed."""
    monkeypatch.setenv("STREAMFX_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["streamfx", *arguments])
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def fill(folder: Path, *keys: str) -> None:
    for key in keys:
        with EngineCache(folder).making(key, "decode", "onnx") as begun:
            (begun / "model.onnx").write_bytes(bytes(2_000_000))


def test_what_is_kept_is_listed_and_removed(call: Call, tmp_path: Path) -> None:
    assert call("engines", "ls")[:2] == (0, f"0 in {tmp_path / 'engines'}, 0.0 MB\n")
    fill(tmp_path / "engines", "abc123", "abd456", "xyz789")
    code, out, _ = call("engines", "ls")
    assert code == 0
    assert all(text in out for text in ("abc123", "decode", "onnx", "2.0 MB", "3 in "))
    assert call("engines", "rm", "abc", "xyz")[0] == 0
    assert [entry.key for entry in EngineCache(tmp_path / "engines").entries()] == ["abd456"]
    assert call("engines", "rm", "--all")[:2] == (0, "1 removed\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("engines", "rm"), "say which engines to remove"),
        (("engines", "rm", "abc", "--all"), "say which engines to remove"),
        (("engines", "rm", "nothing"), "there is no engine that begins with 'nothing'"),
        (("engines", "rm", "ab"), "several engines begin with 'ab'"),
        (("compile", "nothing"), "unknown filter 'nothing'"),
        (("compile", "toon"), "filter 'toon' has no parameter 'engine'"),
        (("compile", "restyle", "--engine", "fast"), "there is no engine 'fast'; choose one of eager"),
        (("compile", "restyle", "--engine", "onnxruntime-bf16"), "onnxruntime does not compute in bf16 here"),
        (("compile", "restyle", "--engine", "eager"), "eager needs no engines"),
        (("compile", "restyle", "--engine", "openvino-int8"), "name a clip with --set calibrate=clip.mp4"),
        (("compile", "sd", "--engine", "eager"), "eager needs no engines"),
        (("compile", "sd", "--engine", "openvino", "--set", "control=depth"), "choose eager, or control none"),
        (("compile", "wan", "--engine", "openvino", "--set", "joint=true"), "choose eager, or joint false"),
        (("compile", "restyle", "--size", "large"), "size 'large' is not possible"),
        (("compile", "restyle", "--threads", "0"), "--threads 0 is not possible"),
        (("compile", "restyle", "--set", "calibrate=/none.mp4"), "calibrate /none.mp4 cannot be read as a video"),
        (("run", "a.mp4", "b.mp4", "--engine", "auto"), "--engine, --inline and --threads are for a filter"),
        (("serve", "--engine", "auto"), "--set and --engine are for a filter"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: tuple[str, ...], says: str, call: Call, tmp_path: Path) -> None:
    fill(tmp_path / "engines", "abc123", "abd456")
    code, out, err = call(*arguments)
    assert code != 0
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert len(EngineCache(tmp_path / "engines").entries()) == 2
