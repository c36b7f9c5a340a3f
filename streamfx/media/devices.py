"""Which cameras, microphones and virtual cameras there are, and the URL of each.

On Linux from ``/sys``, ``/dev`` and ``/proc/asound``; elsewhere as FFmpeg lists them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from streamfx.core.errors import SourceError, UsageError
from streamfx.media import v4l2
from streamfx.media.url import MediaUrl
from streamfx.media.v4l2 import Mode

Kind = Literal["camera", "microphone", "virtual camera"]

ROOT = Path("/")
DEFAULT = "default"
"""The microphone that the system has chosen."""

_VIRTUAL_NAMES = ("OBS Virtual Camera", "Unity Video Capture")
_ASOUND_CARD = re.compile(r"^ *(\d+) \[(\S+) *\]: .*? - (.*)$", re.MULTILINE)
_ASOUND_PCM = re.compile(r"^(\d+)-(\d+): (.*?) *: .*\bcapture\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Device:
    """``name``: as people know it. ``place``: what FFmpeg (or the virtual camera's library) opens. ``bus``: the plug it
    is on, where that is known. ``fault``: why it cannot be used now."""

    kind: Kind
    name: str
    place: str
    url: str
    modes: tuple[Mode, ...] = ()
    bus: str = ""
    fault: str = ""

    def __str__(self) -> str:
        return self.name if self.place in ("", self.name) else f"{self.name} ({self.place})"


def input_format(kind: Kind) -> str:
    """FFmpeg's name of this system's cameras or microphones."""
    if sys.platform == "darwin":
        return "avfoundation"
    if sys.platform == "win32":
        return "dshow"
    return "v4l2" if kind == "camera" else "alsa"


def cameras(root: Path = ROOT) -> list[Device]:
    """Cameras, in the order in which ``camera://0`` counts. ``root``: where ``/sys`` and ``/dev`` are."""
    if sys.platform == "linux":
        return [device for device in _video_nodes(root) if device.kind == "camera"]
    return [device for device in _listed("camera") if not _is_virtual(device)]


def virtual_cameras(root: Path = ROOT) -> list[Device]:
    """Virtual cameras that pictures can be sent to."""
    if sys.platform == "linux":
        return [device for device in _video_nodes(root) if device.kind == "virtual camera"]
    found = [device.name for device in _listed("camera") if _is_virtual(device)]
    return [Device("virtual camera", name, name, f"virtualcam://?name={quote(name)}") for name in found]


def microphones(root: Path = ROOT) -> list[Device]:
    """Microphones; the first is the system's choice. Empty where there is none."""
    found = list(_sound_cards(root)) if sys.platform == "linux" else _listed("microphone")
    if not found:
        return []
    place = found[0].place if sys.platform == "win32" else DEFAULT
    return [Device("microphone", "the system's default", place, f"microphone://{DEFAULT}"), *found]


def find_camera(url: MediaUrl, root: Path = ROOT) -> Device:
    """The camera that a ``camera://`` URL means: by number, by path, or by ``?name=``. Raises ``UsageError``."""
    found = cameras(root)
    if url.path.strip("/"):
        if sys.platform != "linux":
            raise UsageError(f"{url}: cameras have no path on this system; write camera://?name=NAME; {_known(found)}")
        return _at_path(url, found, root)
    if "name" in url.options:
        return pick(found, url.options["name"], str(url), "camera")
    if url.host and not url.host.isdecimal():
        raise UsageError(f"{url}: write a camera's number, as camera://0, or camera://?name=NAME; {_known(found)}")
    number = int(url.host or 0)
    if number >= len(found):
        missing = f"there is no camera {number}; " if found else ""
        raise UsageError(f"{url}: {missing}{_known(found)}")
    return found[number]


def find_microphone(name: str, asked: str, root: Path = ROOT) -> Device:
    """The microphone called ``name``; one of ALSA's names that is not listed is believed. ``asked``: what the user
    wrote. Raises ``UsageError``."""
    found = microphones(root)
    if name == DEFAULT:
        if not found:
            raise UsageError(f"{asked}: {_known(found, 'microphone')}")
        return found[0]
    if sys.platform == "linux" and not any(_matches(device, name) for device in found):
        return Device("microphone", name, name, asked)
    return pick(found, name, asked, "microphone")


def find_again(device: Device, found: Sequence[Device]) -> Device:
    """The same device after it was away, perhaps at another place; never another one. Raises ``SourceError``."""
    same = [one for one in found if (one.name, one.bus) == (device.name, device.bus)] or [
        one for one in found if one.name == device.name
    ]
    if not same:
        raise SourceError("it is not there")
    return next((one for one in same if one.place == device.place), same[0])


def pick(found: Sequence[Device], name: str, asked: str, kind: Kind) -> Device:
    """The device whose place or name is ``name``, or the only one whose name holds it. Raises ``UsageError``."""
    exact = [device for device in found if name.lower() in (device.place.lower(), device.name.lower())]
    matching = exact or [device for device in found if _matches(device, name)]
    if not matching:
        raise UsageError(f"{asked}: there is no {kind} called {name!r}; {_known(found, kind)}")
    if len(matching) > 1 and not exact:
        raise UsageError(f"{asked}: {name!r} may be any of {', '.join(map(str, matching))}; write more of the name")
    return matching[0]


def _matches(device: Device, name: str) -> bool:
    return name.lower() in device.name.lower() or name.lower() == device.place.lower()


def _known(found: Sequence[Device], kind: Kind = "camera") -> str:
    """What there is, as the end of a sentence."""
    if not found:
        return f"no {kind} was found here; plug one in, and see `streamfx devices`"
    return f"there are: {', '.join(map(str, found))}"


def _at_path(url: MediaUrl, found: Sequence[Device], root: Path) -> Device:
    """A device node, virtual cameras that others feed among them."""
    known = next((device for device in found if device.place == url.path), None)
    if known is not None:
        return known
    if not (root / url.path.lstrip("/")).exists():
        raise UsageError(f"{url}: {url.path} does not exist; {_known(found)}")
    return Device("camera", url.path, url.path, str(url))


def _video_nodes(root: Path) -> Iterator[Device]:
    """What Linux has under ``/dev/video*``, by number."""
    names = {path.name for path in (root / "sys/class/video4linux").glob("video*")}
    names |= {path.name for path in (root / "dev").glob("video*")}
    for name in sorted((name for name in names if name[5:].isdecimal()), key=lambda name: int(name[5:])):
        device = _video_node(root, name)
        if device is not None:
            yield device


def _video_node(root: Path, name: str) -> Device | None:
    """None for one that is neither a camera nor a virtual one, such as the second node that many cameras have."""
    about, path = root / "sys/class/video4linux" / name, root / "dev" / name
    place = f"/dev/{name}"
    label = _line(about / "name") or place
    try:
        node = v4l2.query(path)
    except PermissionError:
        if _line(about / "index") not in ("", "0"):
            return None
        fault = "may not be opened; sudo usermod -aG video $USER, then log in again"
        return Device("camera", label, place, f"camera://{place}", fault=fault)
    except OSError:
        return None
    label = node.card or label
    if node.is_loopback:
        fault = "" if node.takes_pictures else "another program feeds it"
        return Device("virtual camera", label, place, f"virtualcam://{place}", fault=fault)
    if not node.captures:
        return None
    return Device("camera", label, place, f"camera://{place}", v4l2.modes(path), node.bus)


def _sound_cards(root: Path) -> Iterator[Device]:
    """ALSA's capture devices."""
    known = {number: (id, name) for number, id, name in _ASOUND_CARD.findall(_text(root / "proc/asound/cards"))}
    for card, device, name in _ASOUND_PCM.findall(_text(root / "proc/asound/pcm")):
        id, label = known.get(str(int(card)), (str(int(card)), "sound card"))
        place = f"plughw:CARD={id},DEV={int(device)}"
        yield Device("microphone", f"{label}, {name}", place, f"microphone://?name={place}")


def _listed(kind: Kind) -> list[Device]:
    """As FFmpeg lists them on macOS and Windows. Raises ``SourceError`` if it cannot."""
    import av

    listing = getattr(av, "enumerate_input_devices", None)
    if listing is None:
        raise SourceError(f"PyAV {av.__version__} cannot list devices; pip install --upgrade av")
    media = "video" if kind == "camera" else "audio"
    found = []
    for device in listing(input_format(kind)):
        if media not in device.media_types:
            continue
        # Windows' own names are long paths; FFmpeg takes the readable ones as well.
        name = device.description or device.name
        place = name if sys.platform == "win32" else device.name
        found.append(Device(kind, name, place, f"{kind}://?name={quote(name)}"))
    return found


def _is_virtual(device: Device) -> bool:
    return any(device.name.startswith(name) for name in _VIRTUAL_NAMES)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    return _text(path).strip()
