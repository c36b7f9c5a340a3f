"""Platforms as outputs over HTTP: their own keys only, and none is shown."""

from __future__ import annotations

import pytest

from tests.unit.server.test_api import detail, eventually, server

KEY = "live_k3y-0f-the-streamer"


async def test_a_platform_with_its_key() -> None:
    async with server() as (http, manager):
        for url, shown in (
            (f"twitch:{KEY}", "twitch"),
            (f"kick:abc.live-video.net/{KEY}", "kick"),
            (f"custom:rtmp://127.0.0.1/live/{KEY}", "rtmp://127.0.0.1/live/****"),
        ):
            made = await http.post("/sessions/live/outputs", json={"url": url})
            assert made.status_code == 201, made.text
            assert made.json()["url"] == shown
            again = await http.post("/sessions/live/outputs", json={"url": url})
            assert "already" in detail(again, 409)
            assert KEY not in made.text + again.text
        listed = await http.get("/sessions/live")
        assert [row["url"] for row in listed.json()["outputs"]] == ["twitch", "kick", "rtmp://127.0.0.1/live/****"]
        assert KEY not in listed.text
        assert manager.sessions["live"].outputs[0]["state"] == "waiting"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("twitch", "twitch needs its key here"),
        ("twitch:@/etc/hostname", "twitch needs its key here"),
        ("twitch:@second", "twitch needs its key here"),
        (f"twich:{KEY}", "did you mean 'twitch'"),
        ("recording.mkv", "over HTTP an output may be"),
        ("custom:recording.mkv", "custom: is for another server's URL"),
    ],
)
async def test_what_is_not_taken(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITCH_KEY", KEY)
    async with server() as (http, _):
        refused = await http.post("/sessions/live/outputs", json={"url": url})
        assert says in detail(refused, 422)
        assert KEY not in refused.text


async def test_a_host_that_is_not_found_keeps_the_stream_from_nobody() -> None:
    lost = {"source": "testpattern://?size=160x96&fps=25", "outputs": [f"rtmp://nobody.invalid/live/{KEY}"]}
    async with server(sessions={"lost": lost}) as (_, manager):
        session = manager.sessions["lost"]
        await eventually(lambda: session.state == "running")
        await eventually(lambda: session.outputs[0]["state"] == "retrying")
        assert KEY not in session.outputs[0]["error"]
        assert session.state == "running"


async def test_one_that_does_not_take_such_pictures_keeps_them_from_nobody() -> None:
    """Twitch takes 60 frames a second at most. The stream runs, for viewers and other targets."""
    too_quick = {"source": "testpattern://?size=160x96&fps=100", "outputs": [f"twitch:rtmp://127.0.0.1/live/{KEY}"]}
    async with server(sessions={"quick": too_quick}) as (http, manager):
        session = manager.sessions["quick"]
        await eventually(lambda: session.state == "running" and session.outputs[0]["state"] == "failed")
        (row,) = (await http.get("/sessions/quick")).json()["outputs"]
        assert "60" in row["error"]
        assert "fps" in row["error"]
        assert session.state == "running"
