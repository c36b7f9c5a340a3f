"""``streamfx relay``, ``keys`` and ``--to``: what is refused, and what targets look like in a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from streamfx.cli import main
from streamfx.cli.targets import Targets, names_of

KEY = "live_k3y-0f-the-streamer"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The command's exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("RELAY_KEY", KEY)
    monkeypatch.delenv("STREAMFX_RTMP_KEY", raising=False)
    monkeypatch.delenv("TWITCH_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)
    (tmp_path / "relay.yaml").write_text("rtmp_key: ${RELAY_KEY}\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["streamfx", *arguments])
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("relay",), "set STREAMFX_RTMP_KEY to one"),
        (("relay", "-c", "relay.yaml", "--to", "twitch"), "streamfx keys set twitch"),
        (("relay", "-c", "relay.yaml", "--to", f"twich:{KEY}"), "did you mean 'twitch'"),
        (("relay", "-c", "relay.yaml", "--set", "cell=3"), "there is no filter"),
        (("relay", "-c", "relay.yaml", "--dry-run"), "there is no target to try"),
        (("relay", "-c", "relay.yaml", "--host", "0.0.0.0"), "a token is needed"),
        (("relay", "-c", "nowhere.yaml"), "does not exist"),
        (("relay", "--set", "cell=3"), "name it with --filter"),
        (("run", "in.mp4", "--to", "twitch"), "export TWITCH_KEY"),
        (("run", "in.mp4", f"vimeo:{KEY}"), "there are: twitch, youtube"),
        (("serve", "--to", "twitch"), "export TWITCH_KEY"),
        (("keys", "rm", "twitch"), "pip install 'streamfx[keys]'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: tuple[str, ...], says: str, call: Call) -> None:
    code, out, err = call(*arguments)
    assert code == 2
    assert says in err or (says == "there is no filter" and "filter" in err)
    assert err.count("\n") == 1
    assert KEY not in out + err


def test_a_trial_of_what_is_too_large_or_a_file(call: Call, tmp_path: Path) -> None:
    target = f"twitch:rtmp://127.0.0.1:9/app/{KEY}"
    arguments = ("run", "in.mp4", "out.mkv", "--to", target, "--to", "no/out.mkv", "--size", "2560x1440", "--dry-run")
    code, out, err = call(*arguments)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["out.mkv", "accepted"]
    assert lines[1].split()[:2] == ["twitch", "refused"]
    assert "--size 1920x1080" in lines[1]
    assert lines[2].split()[:2] == ["no/out.mkv", "refused"]
    assert not (tmp_path / "out.mkv").exists()
    assert KEY not in out


def row(id: int, name: str = "twitch", **more: Any) -> dict[str, Any]:
    counts = {"sent": 0, "dropped": 0, "reconnects": 0, "bytes": 0}
    return {"id": id, "output": name, "state": "live", "error": ""} | counts | more


def shown(targets: Targets, rows: list[dict[str, Any]]) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(targets.table(rows))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_table_of_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("streamfx.cli.targets.time.monotonic", lambda: now[0])
    targets = Targets()
    header, line = shown(targets, [row(1, state="retrying", error="connection lost", reconnects=1)])
    assert header == "target state kbit/s sent dropped reconnects last error"
    assert line == "twitch retrying 0 0 0 1 connection lost"
    for second in range(1, 8):
        now[0] = 100.0 + second
        lines = shown(targets, [row(1, sent=30 * second, bytes=125_000 * second, reconnects=1)])
    # An error that is over is still told.
    assert lines[1] == "twitch live 1000 210 0 1 connection lost"
    now[0] += 1
    assert shown(targets, [row(1, bytes=10)])[1].startswith("twitch live 0 0")


def test_targets_that_look_the_same_get_their_numbers() -> None:
    rows = [row(1), row(2, "youtube"), row(3)]
    assert names_of(rows) == ["twitch #1", "youtube", "twitch #3"]
    assert names_of([{"id": 4, "url": "kick"}]) == ["kick"]
