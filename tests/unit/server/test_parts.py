"""Small parts of the server: events, the meter, settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamfx.core.errors import ConfigError, UsageError
from streamfx.core.stats import Histogram, SessionStats
from streamfx.server.events import EventHub
from streamfx.server.gauge import Gauge
from streamfx.server.settings import ServeConfig, load_serve_config


async def test_a_slow_listener_loses_the_oldest_events() -> None:
    hub = EventHub()
    with hub.listening() as slow, hub.listening() as other:
        assert hub.listeners == 2
        for n in range(500):
            hub.publish("stats", {"n": n})
        hub.close()
        numbers = [event.data["n"] async for event in slow]
        assert numbers == list(range(372, 500))
        assert [event.data["n"] async for event in other] == numbers
    assert hub.listeners == 0
    with hub.listening() as late:
        assert [event async for event in late] == []


def test_the_meter_looks_at_the_last_seconds() -> None:
    gauge, stats = Gauge(window=3.0), SessionStats()
    for tick in range(20):
        stats.count("frames_in", 15)
        stats.count("frames_out", 15)
        stats.count("processed", 10)
        if tick >= 14:  # the last three seconds
            stats.count("late", 5)
        for _ in range(15):
            stats.latency.add(0.05 if tick < 14 else 0.2)
        reading = gauge.read(tick * 0.5, stats)
    assert reading["fps_in"] == pytest.approx(30)
    assert reading["on_time"] == pytest.approx(0.5)
    assert reading["latency_ms"]["p50"] == pytest.approx(200, rel=0.03)


def test_the_meter_survives_a_new_pipeline() -> None:
    gauge, stats = Gauge(), SessionStats()
    stats.count("frames_out", 500)
    gauge.read(0.0, stats)
    fresh = SessionStats()
    fresh.count("frames_out", 15)
    assert gauge.read(0.5, fresh)["fps_out"] == 0.0
    fresh.count("frames_out", 15)
    assert gauge.read(1.0, fresh)["fps_out"] == pytest.approx(30)


def test_histograms_are_subtracted_and_bucketed() -> None:
    histogram = Histogram()
    for value in (0.02, 0.08, 0.3):
        histogram.add(value)
    before = histogram.copy()
    histogram.add(0.08)
    assert histogram.since(before).count == 1
    assert histogram.since(before).quantile(0.5) == pytest.approx(0.08, rel=0.03)
    assert histogram.at_most([0.01, 0.05, 0.1, 1.0]) == [0, 1, 3, 4]
    assert before.at_most([10.0]) == [3]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_configuration_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "serve.yaml",
        "filter: toon\nsessions:\n  studio: {filter: pixelate, outputs: 'rtmp://h/a/${KEY}'}\n"
        "webrtc: {ice_servers: [{urls: stun:s.example:3478}]}\n",
    )
    config = load_serve_config(path, {"port": 9000}, {"KEY": "k123456", "STREAMFX_TOKEN": "t" * 20})
    assert config.port == 9000
    assert config.secret == "t" * 20
    sessions = config.all_sessions()
    assert list(sessions) == ["live", "studio"]
    assert sessions["live"].filter is not None
    assert sessions["live"].filter.name == "toon"
    assert sessions["studio"].outputs == ["rtmp://h/a/k123456"]
    assert config.webrtc.peer_settings().ice_servers[0].urls == ["stun:s.example:3478"]
    assert "t" * 20 not in repr(config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot: 1\n", "did you mean 'port'"),
        ("sessions: {studio: {filtre: toon}}\n", "did you mean 'sessions.studio.filter'"),
        ("sessions: {Studio One: {}}\n", "string should match"),
        ("webrtc: {codecs: [H265]}\n", "webrtc.codecs.0"),
        ("webrtc: {public_addresses: [here]}\n", "no IP address"),
        ("webrtc: {ice_servers: [{urls: http://x}]}\n", "no ICE server"),
        ("limits: {sessions: 0}\n", "limits.sessions"),
        ("port: 99999\n", "port"),
    ],
)
def test_mistakes_in_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_serve_config(write(tmp_path / "serve.yaml", text), {}, {})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("studio.lan", False)],
)
def test_who_can_reach_it(host: str, loopback: bool) -> None:
    config = ServeConfig(host=host)
    assert config.on_loopback is loopback
    if loopback:
        config.check()
    else:
        with pytest.raises(UsageError, match="STREAMFX_TOKEN"):
            config.check()
