"""Listing cameras, microphones and virtual cameras, from folders that look like a Linux machine's and fake drivers."""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from streamfx.cli import devices as command
from streamfx.cli.doctor import device_rows
from streamfx.core.errors import SourceError, UsageError
from streamfx.media import devices, v4l2
from streamfx.media.devices import Device, cameras, find_again, find_camera, find_microphone, microphones, pick
from streamfx.media.url import MediaUrl
from streamfx.media.v4l2 import Mode, Node
from tests.support import streamfx

CAPTURE, OUTPUT, META, M2M = 0x1, 0x2, 0x800000, 0x8000

INTEGRATED = Node("uvcvideo", "Integrated Camera", "usb-1", CAPTURE)
NODES = {
    "video0": INTEGRATED,
    "video1": Node("uvcvideo", "Integrated Camera", "usb-1", META),
    "video2": Node("uvcvideo", "HD Webcam C920", "usb-2", CAPTURE),
    "video4": Node("v4l2 loopback", "streamfx", "platform:v4l2loopback-000", OUTPUT),
    "video5": Node("v4l2 loopback", "OBS Cam", "platform:v4l2loopback-001", CAPTURE),
    "video10": Node("bcm2835-codec", "codec", "platform", CAPTURE | OUTPUT | M2M),
}

CARDS = """\
 0 [PCH            ]: HDA-Intel - HDA Intel PCH
                      HDA Intel PCH at 0x604 irq 140
 2 [C920           ]: USB-Audio - HD Pro Webcam C920
                      HD Pro Webcam C920 at usb-0000:00:14.0-2, high speed
"""
PCM = """\
00-00: ALC257 Analog : ALC257 Analog : playback 1 : capture 1
00-03: HDMI 0 : HDMI 0 : playback 1
02-00: USB Audio : USB Audio : capture 1
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder with the devices above. What stands in for the drivers is ``NODES``."""
    for number, name in enumerate(NODES):
        about = tmp_path / "sys/class/video4linux" / name
        about.mkdir(parents=True)
        (about / "name").write_text(NODES[name].card + "\n")
        (about / "index").write_text("1\n" if name == "video1" else "0\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
        assert number < 90
    (tmp_path / "proc/asound").mkdir(parents=True)
    (tmp_path / "proc/asound/cards").write_text(CARDS)
    (tmp_path / "proc/asound/pcm").write_text(PCM)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(v4l2, "query", lambda path: NODES[path.name])
    monkeypatch.setattr(v4l2, "modes", lambda path: (Mode("mjpeg", (1280, 720), (30.0,)),))
    return tmp_path


# --- Linux


def test_cameras_are_told_from_the_rest(machine: Path) -> None:
    found = cameras(machine)
    assert [(device.name, device.url) for device in found] == [
        ("Integrated Camera", "camera:///dev/video0"),
        ("HD Webcam C920", "camera:///dev/video2"),
    ]
    assert found[0].modes == (Mode("mjpeg", (1280, 720), (30.0,)),)


def test_virtual_cameras(machine: Path) -> None:
    assert [(device.url, device.fault) for device in devices.virtual_cameras(machine)] == [
        ("virtualcam:///dev/video4", ""),
        ("virtualcam:///dev/video5", "another program feeds it"),
    ]


def test_microphones(machine: Path) -> None:
    assert [(device.name, device.url) for device in microphones(machine)] == [
        ("the system's default", "microphone://default"),
        ("HDA Intel PCH, ALC257 Analog", "microphone://?name=plughw:CARD=PCH,DEV=0"),
        ("HD Pro Webcam C920, USB Audio", "microphone://?name=plughw:CARD=C920,DEV=0"),
    ]


def test_a_camera_that_may_not_be_opened_is_listed_with_the_way_out(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Node:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(v4l2, "query", refuse)
    found = cameras(machine)
    assert "video1" not in [device.place[5:] for device in found]
    assert found[0].name == "Integrated Camera"
    assert "usermod -aG video" in found[0].fault


def test_an_empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert cameras(tmp_path) == microphones(tmp_path) == devices.virtual_cameras(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("camera://", "/dev/video0"),
        ("camera://0", "/dev/video0"),
        ("camera://1", "/dev/video2"),
        ("camera:///dev/video2", "/dev/video2"),
        ("camera:///dev/video5", "/dev/video5"),
        ("camera://?name=c920", "/dev/video2"),
        ("camera://?name=Integrated%20Camera", "/dev/video0"),
    ],
)
def test_which_camera_is_meant(machine: Path, url: str, place: str) -> None:
    assert find_camera(MediaUrl.parse(url), machine).place == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "camera://7",
            "there is no camera 7; there are: Integrated Camera (/dev/video0), HD Webcam C920 (/dev/video2)",
        ),
        ("camera:///dev/video77", "/dev/video77 does not exist; there are: Integrated"),
        ("camera://?name=Sony", "no camera called 'Sony'; there are: Integrated"),
        ("camera://front", "write a camera's number, as camera://0"),
        ("camera://?name=a", "'a' may be any of Integrated Camera (/dev/video0), HD Webcam"),
    ],
)
def test_a_camera_that_is_not_there_is_told_with_those_that_are(machine: Path, url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_camera(MediaUrl.parse(url), machine)
    assert says in str(caught.value)


def test_which_microphone_is_meant(machine: Path, tmp_path: Path) -> None:
    def place(name: str) -> str:
        return find_microphone(name, "camera://0", machine).place

    assert place("default") == "default"
    assert place("c920") == place("plughw:CARD=C920,DEV=0") == "plughw:CARD=C920,DEV=0"
    assert place("hw:1,0") == "hw:1,0", "a name of ALSA's that is not listed is believed"
    with pytest.raises(UsageError, match="no microphone was found here"):
        find_microphone("default", "microphone://default", tmp_path / "nowhere")


def test_a_device_is_found_again_wherever_it_is_plugged_in_but_never_another() -> None:
    was = Device("camera", "C920", "/dev/video2", "", bus="usb-2")
    other = Device("camera", "Integrated", "/dev/video2", "", bus="usb-1")
    moved = Device("camera", "C920", "/dev/video3", "", bus="usb-4")
    twin = Device("camera", "C920", "/dev/video1", "", bus="usb-9")
    assert find_again(was, [other, moved]) == moved
    assert find_again(was, [twin, was, other]) == was
    with pytest.raises(SourceError, match="not there"):
        find_again(was, [other])


def test_the_exact_name_wins_over_a_longer_one() -> None:
    short, long = (Device("camera", name, name, "") for name in ("Cam", "Cam 2"))
    assert pick([short, long], "cam", "", "camera") == short


# --- what drivers are asked


class FakeDriver:
    """Answers as a camera's driver does, with the structures of ``<linux/videodev2.h>``."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def answer(self, descriptor: int, request: int, question: bytes) -> bytes:
        assert request >> 16 & 0x3FFF == len(question), "the number of a request holds the size of its structure"
        self.asked.append(request & 0xFF)
        head = struct.unpack_from("=I4s", question)
        n, fourcc = head
        kind = request & 0xFF
        if kind == 2 and n < 3:
            return question[:44] + (b"YUYV", b"MJPG", b"Z16 ")[n] + question[48:]
        if kind == 74 and fourcc == b"YUYV" and n < 1:
            return question[:8] + struct.pack("=III", 1, 640, 480) + question[20:]
        if kind == 74 and fourcc == b"MJPG" and n < 1:
            return question[:8] + struct.pack("=IIIIIII", 2, 160, 1920, 16, 120, 1080, 8) + question[36:]
        if kind == 75 and fourcc == b"YUYV" and n < 2:
            return question[:16] + struct.pack("=III", 1, 1, (30, 15)[n]) + question[28:]
        if kind == 75 and fourcc == b"MJPG" and n < 1:
            return question[:16] + struct.pack("=III", 3, 1001, 60_000) + question[28:]
        raise OSError(22, "Invalid argument")


def test_modes_as_a_driver_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def opened(path: Path) -> Iterator[int]:
        yield 3

    monkeypatch.setattr(v4l2, "_opened", opened)
    monkeypatch.setattr(v4l2, "_ask", FakeDriver().answer)
    assert v4l2.modes(Path("/dev/video0")) == (
        Mode("yuyv422", (640, 480), (30.0, 15.0)),
        Mode("mjpeg", (1920, 1080), (59.94,)),
    )


def test_a_node_as_its_driver_describes_it() -> None:
    whole, own = 0x84A00001, 0x04200001
    answer = struct.pack("=16s32s32sIII12x", b"uvcvideo", b"HD Webcam", b"usb-0000:00:14.0-2", 0x60102, whole, own)
    node = v4l2.parse_node(answer)
    assert (node.driver, node.card, node.bus, node.capabilities) == ("uvcvideo", "HD Webcam", "usb-0000:00:14.0-2", own)
    assert node.captures
    assert not node.is_loopback
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        v4l2.query(Path("/dev/null"))


# --- other systems, as FFmpeg lists their devices


@pytest.fixture(params=["darwin", "win32"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """macOS gives numbers and names, Windows long paths and names."""
    mac = request.param == "darwin"

    def listed(format: str) -> list[SimpleNamespace]:
        assert format == ("avfoundation" if mac else "dshow")
        given = [("FaceTime HD", "video"), ("OBS Virtual Camera", "video"), ("Built-in Mic", "audio")]
        return [
            SimpleNamespace(name=str(n) if mac else f"@device_pnp_{n}", description=name, media_types=[kind])
            for n, (name, kind) in enumerate(given)
        ]

    monkeypatch.setattr(sys, "platform", request.param)
    monkeypatch.setattr(av, "enumerate_input_devices", listed)
    return str(request.param)


def test_devices_elsewhere(elsewhere: str) -> None:
    (camera,) = cameras()
    assert camera.url == "camera://?name=FaceTime%20HD"
    assert camera.place == ("0" if elsewhere == "darwin" else "FaceTime HD")
    assert find_camera(MediaUrl.parse(camera.url)) == camera
    default, microphone = microphones()
    assert default.place == ("default" if elsewhere == "darwin" else "Built-in Mic")
    assert find_microphone("built-in", "") == microphone
    (virtual,) = devices.virtual_cameras()
    assert virtual.url == "virtualcam://?name=OBS%20Virtual%20Camera"
    with pytest.raises(UsageError, match=r"write camera://\?name=NAME"):
        find_camera(MediaUrl.parse("camera:///dev/video0"))


def test_an_old_binding_that_lists_nothing(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(av, "enumerate_input_devices")
    with pytest.raises(SourceError, match="pip install --upgrade av"):
        cameras()


# --- the commands


def test_the_command_where_there_is_nothing() -> None:
    answer = streamfx("devices")
    assert answer.code == 0, answer.err
    for kind in ("Cameras", "Microphones", "Virtual cameras"):
        assert kind in answer.out
    if not any(Path("/dev").glob("video*")):
        assert "none found; plug one in" in answer.out
        assert "sudo modprobe v4l2loopback" in answer.out


def test_the_command_with_a_table(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("cameras", "microphones", "virtual_cameras"):
        monkeypatch.setattr(command, name, lambda name=name: getattr(devices, name)(machine))
    command.show_devices()
    out = capsys.readouterr().out
    for text in ("camera:///dev/video2", "1280x720 mjpeg 30/s", "microphone://default", "another program feeds it"):
        assert text in out


def test_modes_are_listed_largest_first_and_not_without_end() -> None:
    modes = tuple(Mode("yuyv422", (160 * n, 90 * n), (float(n),)) for n in range(1, 11))
    lines = list(command.mode_lines((*modes, Mode("mjpeg", (1600, 900), (30.0,)))))
    assert lines[0] == "1600x900 mjpeg 30/s, yuyv422 10/s"
    assert lines[-1] == "and 4 smaller"


def test_the_doctor_tells_what_a_virtual_camera_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    rows = {name: text for _, name, text in device_rows()}
    assert "pip install 'streamfx[virtualcam]'" in rows["virtual camera"]
    assert set(rows) == {"cameras", "microphones", "virtual camera"}
