"""Which encoder is taken, what it is told, and what becomes of one that fails though it was said to work."""

from __future__ import annotations

import asyncio
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from streamfx.cli import main
from streamfx.core.errors import UsageError
from streamfx.ipc.child import spawn
from streamfx.media import hardware, output
from streamfx.media.base import EncodeSettings, OutputFormat, SinkState
from streamfx.media.encoder import Encoder, HardwareError
from streamfx.media.encoders import AUTO, CODECS, RECIPES, SOFTWARE, choose
from streamfx.media.hardware import ENCODERS, Faults, ask, fault_of, likely
from streamfx.media.hwaccel import DEVICES
from streamfx.media.output import ProcessOutput, file_output
from streamfx.media.slots import VIDEO_SLOTS
from streamfx.media.url import MediaUrl
from streamfx.server.serve import serve
from streamfx.server.settings import ServeConfig, SessionConfig
from tests.support import Clip, look_into, ramp

SIZE = (160, 96)
BUILT = [name for name, recipe in RECIPES.items() if recipe.codec in av.codecs_available]
"""Hardware encoders that FFmpeg was built with, whether there is hardware for them or not."""

works_here = pytest.mark.skipif(likely(), reason="there may be a hardware encoder that really works")


def format_of(encoder: str, live: bool = False) -> OutputFormat:
    return OutputFormat(SIZE, Fraction(25), False, live, EncodeSettings(encoder=encoder))  # type: ignore[arg-type]


@pytest.fixture
def said_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking has found NVENC to work: a card whose sessions are all taken by now, for example."""
    found = Faults({codec: "" if codec == "h264_nvenc" else "no" for codec in ENCODERS}, {})
    monkeypatch.setattr(hardware, "_found", [found])
    monkeypatch.setattr(hardware, "likely", lambda: True)


# --- the table and the choice


def test_first_that_works_is_taken() -> None:
    assert choose(AUTO, {}) == SOFTWARE
    assert choose(AUTO, {"h264_nvenc": "no driver"}) == SOFTWARE
    assert choose(AUTO, {"h264_amf": "", "h264_qsv": "", "h264_nvenc": "no driver"}) == "qsv"
    assert choose(AUTO, {"h264_amf": "", "h264_nvenc": ""}) == "nvenc"


@pytest.mark.parametrize("name", list(RECIPES))
def test_named_one(name: str) -> None:
    codec = RECIPES[name].codec
    assert choose(name, {codec: ""}) == name
    with pytest.raises(UsageError) as caught:
        choose(name, {codec: "Cannot load it"})
    assert str(caught.value) == f"encoder {name} does not work here: Cannot load it; take auto or software"
    with pytest.raises(UsageError, match="could not be tried"):
        choose(name, {})
    assert choose(SOFTWARE, {codec: ""}) == SOFTWARE


@pytest.mark.parametrize("name", BUILT)
def test_options_are_those_of_the_encoder(name: str) -> None:
    """By FFmpeg's own list: none misspelt, no value that it does not know."""
    recipe = RECIPES[name]
    context = av.CodecContext.create(recipe.codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    assert recipe.pixels in {form.name for form in context.codec.video_formats or []}
    known = {option.name: option for option in (*context.supported_options.generic, *context.supported_options.private)}
    wanted = [recipe.options(push=True, rate=1_000_000), recipe.options(push=False, rate=0)]
    for option, value in [pair for options in wanted for pair in options.items()]:
        assert option in known
        if known[option].choices and not value.isdigit():
            assert value in {choice.name for choice in known[option].choices}


def test_a_rate_takes_the_place_of_constant_quality() -> None:
    for recipe in RECIPES.values():
        assert recipe.quality.keys() <= recipe.options(push=False, rate=0).keys()
        assert not recipe.quality.keys() & recipe.options(push=False, rate=5_000_000).keys() - recipe.file.keys()
        push = recipe.options(push=True, rate=5_000_000)
        assert push["maxrate"] == push["bufsize"] == "5000000"
        assert push["bf"] == "0"


# --- asking


@works_here
async def test_asking() -> None:
    faults = await ask()
    assert faults.encoders["libx264"] == faults.encoders["aac"] == ""
    assert faults.encoders.keys() == ENCODERS.keys()
    assert faults.decoders.keys() == DEVICES.keys()
    assert all(faults.encoders[recipe.codec] for recipe in RECIPES.values())
    assert all(faults.decoders.values())


async def test_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def count() -> Faults:
        asked.append(1)
        await asyncio.sleep(0.01)
        return Faults({"h264_amf": ""}, {})

    monkeypatch.setattr(hardware, "_found", [])
    monkeypatch.setattr(hardware, "ask", count)
    monkeypatch.setattr(hardware, "likely", lambda: True)
    assert await hardware.pick(AUTO, wait=False) == SOFTWARE, "nobody waits for an answer"
    async with hardware.asking_ahead(AUTO):
        found = await asyncio.gather(*(hardware.pick(AUTO, wait=True) for _ in range(4)))
    assert found == ["amf"] * 4
    assert await hardware.pick(AUTO, wait=False) == "amf"
    assert len(asked) == 1


async def test_a_driver_that_hangs_or_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that says nothing and stays, and one that dies at once: what cannot be had here of a driver."""
    monkeypatch.setattr(hardware, "_TIMEOUT", 0.3)
    monkeypatch.setattr(hardware, "spawn", lambda module, name: spawn("tests.unit.media.failing_output", name))
    faults = await ask()
    assert set(faults.encoders.values()) == {"trying it took more than 0 s"}
    monkeypatch.setattr(hardware, "_TIMEOUT", 10)
    monkeypatch.setattr(hardware, "spawn", lambda module, name: spawn("tests.unit.media.nothing_like_it", name))
    faults = await ask()
    assert set(faults.encoders.values()) | set(faults.decoders.values()) == {"trying it crashed"}


def test_why_not() -> None:
    def unknown(name: str) -> None:
        av.CodecContext.create(name, "w")

    assert fault_of(unknown, "h264_of_tomorrow") == "FFmpeg here is built without it"
    assert fault_of(unknown, "libx264") == ""


# --- refusals


@works_here
@pytest.mark.parametrize("name", ["nvenc", "videotoolbox"])
def test_refused_before_anything_is_touched(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, out = Clip(frames=3).write(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    out.write_text("old")
    monkeypatch.setattr("sys.argv", ["streamfx", "run", str(clip), str(out), "-y", "--encoder", name])
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"streamfx: encoder {name} does not work here: ")
    assert said.endswith("; take auto or software\n")
    assert out.read_text() == "old"


def test_refused_by_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["run", "a.mp4", "b.mp4"], ["serve"]):
        monkeypatch.setattr("sys.argv", ["streamfx", *command, "--encoder", "x265"])
        assert main() == 2
        assert "encode.encoder: input should be 'auto', 'software', 'nvenc'" in capsys.readouterr().err


@works_here
async def test_refused_by_a_server() -> None:
    config = ServeConfig.model_validate({"port": 0, "rtmp_port": 0, "encode": {"encoder": "amf"}})
    with pytest.raises(UsageError, match="encoder amf does not work here"):
        await serve(config, lambda address, manager: None)


def test_sessions_take_the_encoder_of_their_server() -> None:
    config = ServeConfig.model_validate({"encode": {"encoder": "software"}})
    assert config.encode_of(SessionConfig()).encoder == "software"
    assert config.encode_of(SessionConfig.model_validate({"encode": {"gop_seconds": 1}})).encoder == AUTO


# --- failing on the way


async def write(sink: ProcessOutput, frames: int) -> None:
    """Sends pictures as the offline way does, then ends."""
    running = asyncio.create_task(sink.run())
    try:
        for n in range(frames):
            await sink.room()
            sink.write_video(ramp(SIZE, n), n / 25)
        await sink.finish(10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@works_here
@pytest.mark.usefixtures("said_to_work")
@pytest.mark.skipif("nvenc" not in BUILT, reason="FFmpeg is built without NVENC")
async def test_one_that_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is opened for real, and fails for want of a GPU: not a picture is lost by that."""
    sink = file_output(MediaUrl.parse(str(tmp_path / "out.mp4")), format_of(AUTO))
    await write(sink, 12)
    stats = sink.stats()
    assert (stats["state"], stats["error"], stats["encoder"]) == ("closed", "", "libx264")
    assert (stats["encoder_failures"], stats["reconnects"], stats["sent"]) == (1, 0, 12)
    assert len(look_into(tmp_path / "out.mp4").video) == 12
    assert names(tmp_path) == ["out.mp4"]
    assert len(warnings(caplog)) == 1
    assert "encoder nvenc failed" in warnings(caplog)[0]
    assert "going on with libx264" in warnings(caplog)[0]


@works_here
@pytest.mark.usefixtures("said_to_work")
@pytest.mark.skipif("nvenc" not in BUILT, reason="FFmpeg is built without NVENC")
async def test_a_named_one_that_cannot_be_opened(tmp_path: Path) -> None:
    sink = file_output(MediaUrl.parse(str(tmp_path / "out.mp4")), format_of("nvenc"))
    await write(sink, 2)
    assert sink.state is SinkState.FAILED
    assert sink.error.startswith("encoder nvenc does not work here: ")
    assert sink.error.endswith("; take auto or software")
    assert names(tmp_path) == []


@pytest.mark.usefixtures("said_to_work")
@pytest.mark.parametrize("way", ["error", "crash"])
async def test_one_that_fails_on_its_first_picture(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAILING_WAY", way)
    monkeypatch.setattr(output, "spawn", lambda module, name: spawn("tests.unit.media.failing_output", name))
    sink = file_output(MediaUrl.parse(str(tmp_path / "out.mkv")), format_of(AUTO))
    await write(sink, 40)
    stats = sink.stats()
    assert (stats["state"], stats["encoder"], stats["encoder_failures"]) == ("closed", "libx264", 1)
    assert len(look_into(tmp_path / "out.mkv").video) == stats["sent"] >= 40 - VIDEO_SLOTS - 1
    assert stats["dropped"] == 40 - stats["sent"], "those that were on their way"
    assert names(tmp_path) == ["out.mkv"]
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("said_to_work")
async def test_one_that_fails_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has written is kept; the rest goes to a second part."""
    monkeypatch.setenv("FAILING_WAY", "later")
    monkeypatch.setattr(output, "spawn", lambda module, name: spawn("tests.unit.media.failing_output", name))
    sink = file_output(MediaUrl.parse(str(tmp_path / "out.mkv")), format_of(AUTO))
    await write(sink, 80)
    assert sink.stats()["encoder_failures"] == 1
    assert look_into(tmp_path / "out.2.mkv").video


def test_encoding_error_of_software_is_no_hardware_error(tmp_path: Path) -> None:
    encoder = Encoder(str(tmp_path / "out.mkv"), "matroska", format_of(SOFTWARE), push=False)
    encoder.finish()
    with pytest.raises(av.FFmpegError):
        encoder.write_video(av.VideoFrame(*SIZE, "yuv420p"))


@works_here
@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("push", [False, True])
def test_opening_touches_no_file(tmp_path: Path, name: str, push: bool) -> None:
    with pytest.raises(HardwareError):
        Encoder(str(tmp_path / "out.flv"), "flv", format_of(name), push, name)
    assert list(tmp_path.iterdir()) == []


def test_stats_name_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, stats = Clip(frames=5).write(tmp_path / "clip.mp4"), tmp_path / "stats.json"
    arguments = ["run", clip, tmp_path / "out.mp4", "--encoder", "software", "--stats-json", stats]
    monkeypatch.setattr("sys.argv", ["streamfx", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found: dict[str, Any] = json.loads(stats.read_text())["outputs"][0]
    assert (found["encoder"], found["encoder_failures"]) == (CODECS[SOFTWARE], 0)
