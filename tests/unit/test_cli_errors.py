"""Whatever is wrong with a command, its user gets one sentence, the right exit code and all files as they were."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamfx.cli import main
from streamfx.core.errors import FilterError, StreamFXError
from streamfx.filters import Block, Filter, FilterInfo, Params
from streamfx.pipeline.session import Session
from tests.support import BUNNY, ROOT, Answer, Clip, environment, look_into, streamfx

KEY = "live_k3y-0f-the-streamer"
PUSH = f"rtmp://127.0.0.1:9/live/{KEY}"
"""Named as one more output wherever nothing must come of it anyway: its key may show up nowhere."""

HERE = Path(__file__).resolve().parent
TINT = f"{__name__}:Tint"


class TintParams(Params):
    strength: float = 0.5
    level: int = 3


class Tint(Filter[TintParams]):
    name = "tint"
    info = FilterInfo(summary="For these tests.")

    def process(self, block: Block, params: TintParams) -> Block:
        return block


@dataclass(frozen=True)
class Case:
    """A command that must fail. ``says``: what the sentence must hold. ``push``: whether ``PUSH`` is added."""

    name: str
    arguments: list[str]
    code: int
    says: tuple[str, ...]
    push: bool = True
    env: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        return ["run", *self.arguments, *([PUSH] if self.push else [])]


CASES = [
    # inputs
    Case("missing file", ["nowhere.mp4", "out.mp4"], 2, ("nowhere.mp4", "does not exist")),
    Case("not a video", ["text.mp4", "out.mp4"], 1, ("text.mp4", "not a video")),
    Case("empty file", ["empty.mp4", "out.mp4"], 1, ("empty.mp4", "empty (0 bytes)")),
    Case("no index", ["no-index.mp4", "out.mp4"], 1, ("no-index.mp4", "damaged")),
    Case("folder", ["folder", "out.mp4"], 2, ("folder is a folder",)),
    Case("sound only", ["sound.wav", "out.mp4"], 1, ("sound.wav", "no video stream")),
    Case("sound only, mp4", ["sound.mp4", "out.mp4"], 1, ("sound.mp4", "no video stream")),
    Case("zero byte in a name", ["a\0b.mp4", "out.mp4"], 2, ("zero byte",)),
    Case("no input", [], 2, ("no input",), push=False),
    Case("unknown input scheme", ["rtpm://host/live/x", "out.mp4"], 2, ("rtpm://", "did you mean rtmp")),
    Case("strange input scheme", ["gopher://host/x", "out.mp4"], 2, ("gopher://", "file path")),
    Case("input option", ["clip.mp4?lop=1", "out.mp4"], 2, ("'lop'", "did you mean 'loop'")),
    Case("input option's value", ["clip.mp4?loop=maybe", "out.mp4"], 2, ("loop", "'maybe'", "loop=1")),
    Case("pattern option", ["testpattern://?fsp=30", "out.mp4"], 2, ("'fsp'", "did you mean 'fps'")),
    Case("pattern size", ["testpattern://?size=huge", "out.mp4"], 2, ("'huge'", "1280x720")),
    Case("pattern rate", ["testpattern://?fps=0", "out.mp4"], 2, ("fps", "'0'", "from 1 to 240")),
    Case("rtmp option", [f"rtmp://127.0.0.1/live/{KEY}?lisen=1", "out.mp4"], 2, ("did you mean 'listen'",)),
    Case("rtmp input without a stream", ["rtmp://127.0.0.1", "out.mp4"], 2, ("name the application",)),
    Case("bad port", [f"rtmp://127.0.0.1:99999/live/{KEY}", "out.mp4"], 2, ("not a valid url", "port")),
    Case("space in a URL", [f"rtmp://127.0.0.1/live/{KEY} {KEY}", "out.mp4"], 2, ("rtmp://", "space")),
    # the filter
    Case("unknown filter", ["clip.mp4", "out.mp4", "-f", "passthru"], 2, ("'passthru'", "did you mean 'passthrough'")),
    Case("no such module", ["clip.mp4", "out.mp4", "-f", "nowhere:Filter"], 2, ("nowhere:Filter", "no module")),
    Case("no filter class", ["clip.mp4", "out.mp4", "-f", "pathlib:Path"], 1, ("not a filter",)),
    Case("unknown parameter", ["clip.mp4", "out.mp4", "-f", TINT, "-s", "strenght=1"], 2, ("did you mean 'strength'",)),
    Case("wrong parameter", ["clip.mp4", "out.mp4", "-f", TINT, "-s", "level=lots"], 2, ("level = 'lots'", "integer")),
    Case("no equals sign", ["clip.mp4", "out.mp4", "-f", TINT, "-s", "strength"], 2, ("--set 'strength'", "key=value")),
    Case(
        "unknown style",
        ["clip.mp4", "out.mp4", "--filter", "restyle", "--set", "style=xyzzy"],
        2,
        ("no style is known by 'xyzzy'", "ukiyo-e"),
    ),
    Case("set without a filter", ["clip.mp4", "out.mp4", "-s", "strength=1"], 2, ("--filter",)),
    Case("no threads", ["clip.mp4", "out.mp4", "-f", TINT, "--threads", "0"], 2, ("threads", "greater")),
    # outputs
    Case("no output", ["clip.mp4"], 2, ("no output",), push=False),
    Case("missing folder", ["clip.mp4", "no/where/out.mp4"], 2, ("no/where", "does not exist")),
    Case("file for a folder", ["clip.mp4", "text.mp4/out.mp4"], 2, ("text.mp4", "does not exist")),
    Case("output is a folder", ["clip.mp4", "folder.mp4"], 2, ("folder.mp4", "is a folder")),
    Case("no extension", ["clip.mp4", "out"], 2, ("out", ".mp4")),
    Case("unknown extension", ["clip.mp4", "out.avi"], 2, ("out.avi", ".mkv")),
    Case("output exists", ["clip.mp4", "old.mp4"], 2, ("old.mp4", "--overwrite")),
    Case("second output exists", ["clip.mp4", "out.mp4", "old.mp4"], 2, ("old.mp4", "--overwrite")),
    Case("output option", ["clip.mp4", "out.mp4?overwite=1"], 2, ("did you mean 'overwrite'",)),
    Case("same output twice", ["clip.mp4", "out.mp4", "./out.mp4"], 2, ("out.mp4", "another output")),
    Case("same stream twice", ["clip.mp4", "out.mp4", PUSH], 2, ("127.0.0.1", "another output")),
    Case("output is the input", ["old.mp4", "old.mp4"], 2, ("old.mp4", "the input")),
    Case("output is the input, -y", ["old.mp4", "old.mp4", "-y"], 2, ("old.mp4", "the input")),
    Case("output links to the input, -y", ["old.mp4", "link.mp4", "-y"], 2, ("link.mp4", "the input")),
    Case("output is the input by another way, -y", ["old.mp4", "folder/../old.mp4", "-y"], 2, ("the input",)),
    Case("bad input, -y", ["text.mp4", "old.mp4", "-y"], 1, ("not a video",)),
    Case("unknown output scheme", ["clip.mp4", f"rtms://host/live/{KEY}"], 2, ("rtms://", "did you mean rtmp")),
    Case("output without a stream", ["clip.mp4", "out.mp4", "rtmp://127.0.0.1"], 2, ("no stream",)),
    Case("host not found", ["clip.mp4", "out.mp4", f"rtmp://nobody.invalid/live/{KEY}"], 1, ("nobody.invalid",)),
    # flags
    Case("size", ["clip.mp4", "out.mp4", "--size", "big"], 2, ("'big'", "1280x720")),
    Case("odd size", ["clip.mp4", "out.mp4", "--size", "101x101"], 2, ("'101x101'", "even")),
    Case("no rate", ["clip.mp4", "out.mp4", "--fps", "0"], 2, ("fps", "greater than")),
    Case("not a rate", ["clip.mp4", "out.mp4", "--fps", "nan"], 2, ("fps",)),
    Case("no budget", ["clip.mp4", "out.mp4", "--budget-ms", "1"], 2, ("budget_ms", "greater than")),
    Case("fallback", ["clip.mp4", "out.mp4", "--fallback", "sauce"], 2, ("fallback", "'source' or 'hold'")),
    Case("log level", ["clip.mp4", "out.mp4", "--log-level", "loud"], 2, ("'loud'", "debug")),
    Case(
        "statistics nowhere", ["clip.mp4", "out.mp4", "--stats-json", "no/stats.json"], 2, ("no/stats.json", "folder")
    ),
    Case("statistics over the input", ["old.mp4", "out.mp4", "--stats-json", "old.mp4"], 2, ("old.mp4", "another")),
    # the configuration
    Case("no configuration", ["-c", "nowhere.yaml", "clip.mp4", "out.mp4"], 2, ("nowhere.yaml", "does not exist")),
    Case("not YAML", ["-c", "broken.yaml", "clip.mp4", "out.mp4"], 2, ("broken.yaml", "line 3")),
    Case("binary configuration", ["-c", "clip.mp4", "clip.mp4", "out.mp4"], 2, ("clip.mp4", "text")),
    Case("configuration is a folder", ["-c", "folder", "clip.mp4", "out.mp4"], 2, ("folder", "YAML")),
    Case("no such variable", ["-c", "stream.yaml"], 2, ("STREAM_KEY", "not set"), push=False),
    Case("only a key", ["-c", "key.yaml"], 2, ("${STREAM_KEY}",), push=False, env={"STREAM_KEY": KEY}),
    Case("key and typing error", ["-c", "stream.yaml", "--size", "no"], 2, ("'no'",), False, {"STREAM_KEY": KEY}),
    Case("key as parameter", ["-c", "param.yaml"], 2, ("level", "${STREAM_KEY}"), False, {"STREAM_KEY": KEY}),
]

IN_A_PROCESS = ("not a video", "output is the input, -y", "unknown filter", "key as parameter", "host not found")
"""These are tried with the installed command too: its exit code must get through."""


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("materials")
    clip = Clip(rate=48_000).write(folder / "clip.mp4")
    shutil.copy(clip, folder / "old.mp4")
    (folder / "text.mp4").write_text("no video at all\n" * 20)
    (folder / "empty.mp4").write_bytes(b"")
    whole = BUNNY.read_bytes()
    (folder / "no-index.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(folder / "sound.wav", "pcm_s16le")
    write_sound(folder / "sound.mp4", "aac")
    (folder / "folder").mkdir()
    (folder / "folder.mp4").mkdir()
    (folder / "broken.yaml").write_text("fps: 25\nsize: [\n")
    (folder / "stream.yaml").write_text("input: clip.mp4\noutputs: ['rtmp://127.0.0.1:9/live/${STREAM_KEY}']\n")
    (folder / "key.yaml").write_text("input: clip.mp4\noutputs: ['${STREAM_KEY}']\n")
    (folder / "param.yaml").write_text(
        f"input: clip.mp4\noutputs: [out.mp4]\nfilter: {{name: '{TINT}', params: {{level: 'a ${{STREAM_KEY}}'}}}}\n"
    )
    return folder


def write_sound(path: Path, codec: str) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        form = stream.codec_context.format.name
        kind = np.int16 if form == "s16" else np.float32
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), kind), form, "mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def yard(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a case."""
    shutil.copytree(materials, tmp_path, dirs_exist_ok=True)
    os.link(tmp_path / "old.mp4", tmp_path / "link.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAM_KEY", raising=False)
    return tmp_path


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The command in this process, which is much quicker to start."""

    def run(arguments: list[str], env: dict[str, str]) -> Answer:
        monkeypatch.setattr(sys, "argv", ["streamfx", *arguments])
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        started = time.monotonic()
        try:
            code = main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        out, err = capfd.readouterr()
        return Answer(code, out, err, time.monotonic() - started)

    return run


def check(answer: Answer, case: Case) -> None:
    assert answer.code == case.code, answer.err
    lines = answer.err.splitlines()
    assert [line for line in lines if line.startswith("streamfx: ")] == lines, "one sentence, and nothing else"
    assert len(lines) == 1
    for words in case.says:
        assert words.lower() in lines[0].lower()
    assert "Traceback" not in answer.out + answer.err
    assert KEY not in answer.out + answer.err
    assert "internal error" not in answer.err
    assert answer.seconds < 5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_request(case: Case, yard: Path, call: Callable[..., Answer]) -> None:
    before = state_of(yard)
    answer = call(case.command(), case.env)
    check(answer, case)
    assert state_of(yard) == before


@pytest.mark.parametrize("case", [c for c in CASES if c.name in IN_A_PROCESS], ids=lambda case: case.name)
def test_bad_request_of_the_command(case: Case, yard: Path) -> None:
    before = state_of(yard)
    answer = streamfx(*case.command(), env=environment(PYTHONPATH=os.pathsep.join(map(str, (HERE, ROOT))), **case.env))
    check(answer, case)
    assert state_of(yard) == before


def test_the_cases_of_the_command_exist() -> None:
    assert {case.name for case in CASES} >= set(IN_A_PROCESS)


@pytest.mark.parametrize("arguments", [["--fbs", "3"], ["--fps", "many"], ["--threads", "1.5"]])
def test_bad_flag(arguments: list[str], yard: Path, call: Callable[..., Answer]) -> None:
    before = state_of(yard)
    answer = call(["run", "clip.mp4", "out.mp4", PUSH, *arguments], {})
    assert answer.code == 2
    assert arguments[0] in answer.err
    assert "Traceback" not in answer.err
    assert KEY not in answer.err + answer.out
    assert state_of(yard) == before


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use(busy_port: int, yard: Path, call: Callable[..., Answer]) -> None:
    before = state_of(yard)
    answer = call(["run", f"rtmp://127.0.0.1:{busy_port}/live/{KEY}?listen=1", "out.mp4"], {})
    check(answer, Case("port in use", [], 1, (str(busy_port), "in use")))
    assert state_of(yard) == before


def test_nobody_answers(yard: Path, call: Callable[..., Answer]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    before = state_of(yard)
    answer = call(["run", f"rtmp://127.0.0.1:{port}/live/{KEY}", "out.mp4"], {})
    check(answer, Case("nobody answers", [], 1, ("127.0.0.1",)))
    assert state_of(yard) == before


def test_file_that_ends_in_the_middle(yard: Path) -> None:
    """What is there is used, the output is a proper file, and the user is told."""
    clip = Clip(frames=100, codec="libx264", options={"movflags": "faststart"}).write(yard / "whole.mp4")
    data = clip.read_bytes()
    (yard / "cut.mp4").write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    answer = streamfx("run", "cut.mp4", "out.mp4", cwd=yard)
    assert "Traceback" not in answer.err
    assert 20 <= len(look_into(yard / "out.mp4").video) < 90
    assert answer.code == 1
    assert [line for line in answer.err.splitlines() if line.startswith("streamfx: ")] == answer.err.splitlines()[-1:]
    assert "damaged" in answer.err


@pytest.mark.parametrize("failure", [FilterError("two\nlines"), ValueError(f"rtmp://host/live/{KEY}\nmore")])
def test_every_failure_is_one_line(
    failure: Exception, yard: Path, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(session: Session) -> None:
        raise failure

    monkeypatch.setattr(Session, "run", fail)
    answer = call(["run", "clip.mp4", "out.mp4"], {})
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("streamfx: ")
    assert ("internal error" in answer.err) == (not isinstance(failure, StreamFXError))
    assert KEY not in answer.err


def test_disk_full_of_statistics(yard: Path, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that cannot be written do not cost the stream."""
    folder = yard / "gone"
    folder.mkdir()
    real = Session.run

    async def run(session: Session) -> None:
        shutil.rmtree(folder)
        await real(session)

    monkeypatch.setattr(Session, "run", run)
    answer = call(["run", "clip.mp4", "out.mp4", "--stats-json", "gone/stats.json"], {})
    assert answer.code == 0, answer.err
    assert len(look_into(yard / "out.mp4").video) == 10
