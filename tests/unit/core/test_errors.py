"""Errors have a sentence and hold no secret."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core import errors
from streamfx.core.errors import redact


def test_every_error_is_one_of_ours_and_tells_its_exit_code() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) >= 7
    assert all(issubclass(c, errors.StreamFXError) for c in classes)
    assert {c for c in classes if c.exit_code == 2} == {errors.UsageError, errors.ConfigError}
    assert issubclass(errors.FilterCrashedError, errors.FilterError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtmp://live.twitch.tv/app/live_123_abc", "rtmp://live.twitch.tv/app/****"),
        ("rtmp://h:1935/a/b/key?bandwidthtest=true", "rtmp://h:1935/a/b/****"),
        ("rtmps://user:pass@h/app/key", "rtmps://****@h/app/****"),
        ("srt://h:9000?streamid=key&passphrase=p", "srt://h:9000?****"),
        ("rtmp://h?key=abc", "rtmp://h?****"),
        ("RTMP://H/app/KEY is down", "RTMP://H/app/**** is down"),
        ("'rtmp://h/app/key' and \"rtmp://h/app/key2\"", "'rtmp://h/app/****' and \"rtmp://h/app/****\""),
        ("rtmp://h/app", "rtmp://h/app"),
        ("rtmp://h/app/", "rtmp://h/app"),
        ("rtmp://h/app/key/", "rtmp://h/app/****"),
        ("rtmp://h/app?key=abc", "rtmp://h/app?****"),
        ("rtmp://h", "rtmp://h"),
        ("/dev/video0 and C:\\x and http://h/a/b", "/dev/video0 and C:\\x and http://h/a/b"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert redact(text) == shown


KEYS = st.text(string.ascii_letters + string.digits + "_-.~+=:@", min_size=6, max_size=40).map(lambda s: f"K9{s}")
HOSTS = st.sampled_from(["a.example", "10.0.0.1:1935", "[2001:db8::1]:443", "localhost"])


@given(
    st.sampled_from(["rtmp", "rtmps", "RTMPS", "srt", "rtsp", "rtsps"]),
    HOSTS,
    KEYS,
    st.sampled_from(
        [
            "{s}://{h}/live/{k}",
            "{s}://{h}/app/inst/{k}",
            "{s}://{h}/live/{k}?x=1",
            "{s}://{h}/live/k?token={k}",
            "{s}://{h}/live?token={k}",
            "{s}://{h}?streamid={k}",
            "{s}://{h}/?streamid={k}",
            "{s}://me:{k}@{h}/live/x",
            "{s}://{k}@{h}/live",
            "{s}://{h}/live/{k}/",
            "{s}://{h}//{k}",
            "{s}://{h}/live/x#{k}",
        ]
    ),
    st.sampled_from(
        ["{u}", "cannot open {u}: I/O error", "'{u}'", '"{u}"', "({u})", "[flv @ 0x1] {u}\nnext", "url={u}, again"]
    ),
)
def test_redact_hides_keys_in_many_shapes(scheme: str, host: str, key: str, shape: str, around: str) -> None:
    text = around.format(u=shape.format(s=scheme, h=host, k=key))
    assert key not in redact(text)


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_redact_hides_what_it_is_told_to(text: str, secrets: list[str]) -> None:
    shown = redact(text, ["", *secrets])
    assert all(secret not in shown.replace("****", "") or secret in "****" for secret in secrets[:1])


def test_redact_of_secrets_wherever_they_stand() -> None:
    assert redact("auth failed for hunter2 (hunter2)", ["hunter2"]) == "auth failed for **** (****)"


@given(st.text())
def test_redact_twice_is_redact_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
