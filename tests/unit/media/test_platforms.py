"""Platforms by name: how they are written, where their keys come from, and what is asked of the encoder for them."""

from __future__ import annotations

import logging
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from streamfx.core.errors import UsageError, redact
from streamfx.media.base import EncodeSettings, OutputFormat
from streamfx.media.encoder import video_bitrate
from streamfx.media.keys import forget_key, store_key
from streamfx.media.platforms import PLATFORMS, fitted, output_url, trial_address
from streamfx.media.rtmp.client import RtmpUrl

KEY = "live_k3y-0f-the-streamer"
FORMAT = OutputFormat((1280, 720), Fraction(30), audio=True, live=True, encode=EncodeSettings())


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A fake keyring, of which this machine has none: what it holds."""
    held: dict[str, str] = {}
    fake = types.ModuleType("keyring")
    errors = types.SimpleNamespace(
        KeyringError=type("KeyringError", (Exception,), {}), NoKeyringError=type("NoKeyringError", (Exception,), {})
    )
    errors.PasswordDeleteError = type("PasswordDeleteError", (errors.KeyringError,), {})

    def delete(service: str, name: str) -> None:
        if held.pop(name, None) is None:
            raise errors.PasswordDeleteError

    members = {
        "errors": errors,
        "get_password": lambda service, name: held.get(name),
        "set_password": lambda service, name, key: held.update({name: key}),
        "delete_password": delete,
    }
    for name, member in members.items():
        setattr(fake, name, member)
    monkeypatch.setitem(sys.modules, "keyring", fake)
    return held


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda platform: platform.name)
def test_the_table(platform) -> None:
    url = RtmpUrl.parse(f"{platform.ingest}/{KEY}")
    assert (url.scheme, url.name) == ("rtmps", KEY)
    assert platform.source
    longer, shorter = platform.size
    for size in ((longer, shorter), (shorter, longer), (1280, 720), (640, 360), (160, 90)):
        for fps in (Fraction(platform.fps), Fraction(30_000, 1001), Fraction(10)):
            kbps = platform.video_kbps(size, fps)
            assert 500 <= kbps <= platform.video_kbps(platform.size, Fraction(platform.fps))
    # What is sent by default at 720p is fine everywhere, so that all targets can share one encoder.
    assert fitted(output_url(f"{platform.name}:{KEY}"), FORMAT) is FORMAT


@pytest.mark.parametrize(
    ("text", "shown", "where"),
    [
        (f"twitch:{KEY}", "twitch", f"rtmps://ingest.global-contribute.live-video.net/app/{KEY}"),
        (f"YouTube:{KEY}", "youtube", f"rtmps://a.rtmps.youtube.com/live2/{KEY}"),
        (f"facebook:FB-1?s_bl=1&a={KEY}", "facebook", f"rtmps://live-api-s.facebook.com:443/rtmp/FB-1?s_bl=1&a={KEY}"),
        (f"kick:{KEY}", "kick", f"rtmps://fa723fc1b171.global-contribute.live-video.net/app/{KEY}"),
        (f"kick:abc.live-video.net/{KEY}", "kick", f"rtmps://abc.live-video.net/app/{KEY}"),
        (f"kick:abc.live-video.net/live/{KEY}", "kick", f"rtmps://abc.live-video.net/live/{KEY}"),
        (f"twitch:rtmp://127.0.0.1:19/app/{KEY}", "twitch", f"rtmp://127.0.0.1:19/app/{KEY}"),
        (f"custom:rtmp://host/live/{KEY}", "rtmp://host/live/****", f"rtmp://host/live/{KEY}"),
        (f"rtmp://host/live/{KEY}", "rtmp://host/live/****", f"rtmp://host/live/{KEY}"),
        ("talk:1.mp4", "talk:1.mp4", "talk:1.mp4"),
        ("C:\\talk.mp4", "C:\\talk.mp4", "C:\\talk.mp4"),
    ],
)
def test_how_they_are_written(text: str, shown: str, where: str) -> None:
    url = output_url(text, {})
    assert (str(url), url.raw) == (shown, where)
    assert KEY not in repr(url) + str(url)
    if KEY in text:
        assert KEY not in redact(f"cannot open {url.raw}: {KEY} of s_bl=1&a={KEY}", url.secrets)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("twitch", "streamfx keys set twitch, or export TWITCH_KEY"),
        ("twitch:", "streamfx keys set twitch"),
        ("twitch:@second", "streamfx keys set second, or export SECOND_KEY"),
        ("twitch:@./no/such/file", "cannot be read"),
        (f"twitch:{KEY} {KEY}", "has a space"),
        (f"twitch:{KEY}/{KEY}", "slash"),
        (f"twich:{KEY}", "did you mean 'twitch'"),
        (f"vimeo:{KEY}", "there are: twitch, youtube, kick, facebook, custom"),
        (f"custom:{KEY}", "custom:rtmp://HOST/APP/KEY"),
        ("custom:out.mp4", "custom:rtmp://HOST/APP/KEY"),
    ],
)
def test_what_cannot_be(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        output_url(text, {})
    assert says in str(raised.value)
    assert KEY not in str(raised.value)


def test_where_a_key_comes_from(keyring: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-of-a-file\n")
    store_key("twitch", f"{KEY}-of-the-keyring")
    store_key("my-second", f"{KEY}-2")
    ingest = PLATFORMS["twitch"].ingest
    assert output_url("twitch", {"TWITCH_KEY": KEY}).raw == f"{ingest}/{KEY}"
    assert output_url("twitch", {}).raw == f"{ingest}/{KEY}-of-the-keyring"
    assert output_url(f"twitch:@{file}", {}).raw == f"{ingest}/{KEY}-of-a-file"
    second = output_url("twitch:@my-second", {})
    assert (str(second), second.raw) == ("twitch (my-second)", f"{ingest}/{KEY}-2")
    assert output_url("twitch:@my-second", {"MY_SECOND_KEY": KEY}).raw == f"{ingest}/{KEY}"
    with pytest.raises(UsageError, match="twitch needs its key here; write twitch:KEY"):
        output_url("twitch", {"TWITCH_KEY": KEY}, stored=False)
    forget_key("twitch")
    with pytest.raises(UsageError, match="there is no key for twitch"):
        forget_key("twitch")
    assert list(keyring) == ["my-second"]


def test_without_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match="no stream key is known"):
        output_url("twitch", {})
    for work in (lambda: store_key("twitch", KEY), lambda: forget_key("twitch")):
        with pytest.raises(UsageError, match=r"pip install 'streamfx\[keys\]'"):
            work()


def test_what_is_above_a_cap_is_lowered_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = replace(FORMAT, size=(1920, 1080), encode=EncodeSettings(9_000_000, 320_000, "fast", 5.0, "software"))
    with caplog.at_level(logging.WARNING):
        got = fitted(output_url(f"twitch:{KEY}"), asked)
    assert got == replace(asked, encode=EncodeSettings(6_000_000, 160_000, "fast", 2.0, "software"))
    (line,) = caplog.messages
    assert all(part in line for part in ("twitch", "6000 instead of 9000", "160 instead of 320", "2 instead of 5 s"))
    assert KEY not in line


def test_a_bitrate_by_size_is_lowered_too() -> None:
    asked = replace(FORMAT, size=(1920, 1080))
    assert video_bitrate(asked.size, asked.fps) > 6_000_000
    assert fitted(output_url(f"twitch:{KEY}"), asked).encode.video_bitrate == 6_000_000
    assert fitted(output_url(f"youtube:{KEY}"), asked) is asked
    assert fitted(output_url(f"custom:rtmp://host/live/{KEY}"), asked) is asked


@pytest.mark.parametrize(
    ("size", "fps", "says"),
    [
        ((2560, 1440), 30, "give --size 1920x1080"),
        ((1440, 2560), 30, "give --size 1080x1920"),
        ((2560, 1080), 30, "give --size 1920x1080"),
        ((1280, 720), 120, "give --fps 60"),
    ],
)
def test_pictures_that_are_not_taken(size: tuple[int, int], fps: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fitted(output_url(f"twitch:{KEY}"), replace(FORMAT, size=size, fps=Fraction(fps)))


def test_the_address_of_a_trial() -> None:
    assert trial_address(output_url(f"twitch:{KEY}")).endswith(f"/app/{KEY}?bandwidthtest=true")
    assert trial_address(output_url(f"twitch:{KEY}?a=b")).endswith(f"/app/{KEY}?a=b&bandwidthtest=true")
    assert trial_address(output_url(f"youtube:{KEY}")).endswith(f"/live2/{KEY}")
    assert trial_address(output_url(f"rtmp://host/live/{KEY}")) == f"rtmp://host/live/{KEY}"
