"""The REST interface with real sessions behind it, in process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from streamfx.server.app import create_app
from streamfx.server.manager import Manager
from streamfx.server.problems import ProblemError
from streamfx.server.settings import ServeConfig
from streamfx_plugins.sd import Sd
from tests.unit.webrtc.clients import CameraTrack, answered, client, grey

SDP = {"Content-Type": "application/sdp"}


@contextlib.asynccontextmanager
async def server(**config: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Manager]]:
    manager = Manager(ServeConfig.model_validate({"rtmp_port": 0} | config))
    app = create_app(manager)
    async with manager.running():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20) as http:
            yield http, manager


async def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await asyncio.sleep(0.02)


def detail(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["detail"])


async def test_the_session_that_is_always_there() -> None:
    async with server(filter={"name": "toon"}) as (http, _):
        (live,) = (await http.get("/sessions")).json()["sessions"]
        assert live["id"] == "live"
        assert live["state"] == "idle"
        assert live["filter"]["name"] == "toon"
        assert live["ingest"] == {"whip": "/whip/live", "rtmp": None}
        assert (await http.get("/sessions/live")).json() == live
        assert "no session" in detail(await http.get("/sessions/nope"), 404)


async def test_health() -> None:
    async with server() as (http, manager):
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).status_code == 200
        manager.accepting = False
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/clock")).json()["now_ms"] > 1.6e12


async def test_filters_come_with_their_schemas() -> None:
    async with server() as (http, _):
        found = {entry["name"]: entry for entry in (await http.get("/filters")).json()["filters"]}
        ink = found["toon"]["schema"]["properties"]["ink"]
        assert (ink["minimum"], ink["maximum"], ink["title"]) == (0, 1, "Ink")
        chain = (await http.get("/filters/avatar%2Btoon")).json()
        assert (chain["name"], chain["takes"]) == ("avatar+toon", "audio")
        assert chain["schema"]["properties"]["toon.ink"]["title"] == "toon: ink"
        assert "it can only be the first" in detail(await http.get("/filters/toon+avatar"), 422)
        assert "named by its name alone" in detail(await http.get("/filters/os:system"), 422)


async def test_filters_one_after_the_other() -> None:
    own = {"filter": {"name": "sd", "params": {"model": "somewhere/else", "prompt": "a cat"}, "threads": 3}}
    async with server(sessions={"other": own}) as (http, manager):
        chain = {"name": "pixelate+toon", "params": {"pixelate.cell": 8}}
        assert (await http.put("/sessions/live/filter", json=chain)).status_code == 200
        patched = await http.patch("/sessions/live/params", json={"toon.ink": 0.25})
        assert (patched.json()["toon.ink"], patched.json()["pixelate.cell"]) == (0.25, 8)
        refused = await http.patch("/sessions/live/params", json={"pixelate.cell": -8})
        assert "pixelate.cell = -8 is not possible" in detail(refused, 422)
        chain = {"name": "toon+sd", "params": {"sd.model": "/etc"}}
        assert "whoever runs the server" in detail(await http.put("/sessions/live/filter", json=chain), 422)
        chain["params"] = {}
        assert (await http.put("/sessions/live/filter", json=chain)).status_code == 200
        choice = manager.sessions["live"]._choice
        assert choice is not None
        assert choice.params.model_dump()["sd.model"] == "somewhere/else"


async def test_parameters_are_validated_and_changed_as_one() -> None:
    async with server(filter={"name": "toon"}) as (http, _):
        before = (await http.get("/sessions/live/params")).json()
        path = "/sessions/live/params"
        assert "less than or equal to 1" in detail(await http.patch(path, json={"levels": 5, "ink": 7}), 422)
        assert "did you mean 'ink'" in detail(await http.patch(path, json={"inc": 1}), 422)
        assert "not valid JSON" in detail(
            await http.patch(path, content=b"{", headers={"Content-Type": "application/json"}), 400
        )
        assert (await http.get(path)).json() == before
        assert (await http.patch(path, json={"levels": 5, "ink": 0.25})).json() == before | {"levels": 5, "ink": 0.25}
        await http.put("/sessions/live/filter", json={"name": None})
        assert "no filter" in detail(await http.patch(path, json={"ink": 1}), 422)


async def test_sessions_are_made_and_ended() -> None:
    async with server(limits={"sessions": 3}) as (http, manager):
        made = await http.post(
            "/sessions", json={"source": "testpattern://?size=160x96&fps=30", "filter": {"name": "pixelate"}}
        )
        assert made.status_code == 201
        id = made.json()["id"]
        assert made.headers["location"] == f"/sessions/{id}"
        session = manager.get(id)
        assert session is not None
        await eventually(lambda: session.state == "running" and session.meter().get("fps_out", 0) > 20)
        info = (await http.get(f"/sessions/{id}")).json()
        assert info["size"] == [160, 96]
        assert info["source"].startswith("testpattern://")
        assert (await http.post("/sessions", json={"id": "mine"})).status_code == 201
        assert "already" in detail(await http.post("/sessions", json={"id": "live"}), 409)
        full = await http.post("/sessions", json={})
        assert "no room" in detail(full, 503)
        assert int(full.headers["retry-after"]) > 0
        assert (await http.delete(f"/sessions/{id}")).status_code == 204
        assert detail(await http.get(f"/sessions/{id}"), 404)
        assert "already" in detail(await http.post("/sessions", json={"id": "mine"}), 409)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"source": "/etc/passwd"}, "over HTTP a source may be"),
        ({"source": "file:///etc/passwd"}, "over HTTP a source may be"),
        ({"source": "rtmp://127.0.0.1/live/secretkey?listen=1"}, "cannot listen"),
        ({"filter": {"name": "os:system"}}, "by its name alone"),
        ({"filter": {"name": "tooon"}}, "did you mean 'toon'"),
        ({"filter": {"name": "toon", "params": {"ink": 9}}}, "less than or equal"),
        ({"filter": {"name": "toon", "inline": True}}, "extra inputs"),
        ({"size": "big"}, "write WIDTHxHEIGHT"),
        ({"id": "No Spaces!"}, "id: string should match"),
        ({"nonsense": 1}, "nonsense: extra inputs"),
        ([], "valid dictionary"),
    ],
)
async def test_sessions_that_are_refused(body: Any, says: str) -> None:
    async with server() as (http, manager):
        text = detail(await http.post("/sessions", json=body), 422)
        assert says in text
        assert "secretkey" not in text
        assert list(manager.sessions) == ["live"]


async def test_a_filter_is_switched_live() -> None:
    config = {"sessions": {"test": {"source": "testpattern://?size=160x96&fps=30"}}}
    async with server(**config) as (http, manager):
        session = manager.sessions["test"]
        await eventually(lambda: session.state == "running" and bool(session.meter()))
        assert session.meter()["rung"] is None
        path = "/sessions/test/filter"
        switched = await http.put(path, json={"name": "pixelate", "params": {"cell": 32}})
        assert switched.json() == {"name": "pixelate", "params": {"cell": 32, "shape": "square", "tones": 0}}
        await eventually(lambda: session.meter().get("rung") == "full" and session.meter()["on_time"] is not None)
        assert "unknown filter" in detail(await http.put(path, json={"name": "nope"}), 422)
        assert (await http.get("/sessions/test")).json()["filter"]["name"] == "pixelate"
        assert (await http.put(path, json={"name": None})).json() == {"name": None, "params": {}}
        assert (await http.get("/sessions/test")).json()["filter"] is None


async def test_outputs_hide_their_keys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = {"sessions": {"test": {"source": "testpattern://?size=160x96&fps=30"}}}
    async with server(**config) as (http, manager):
        session = manager.sessions["test"]
        await eventually(lambda: session.state == "running")
        path = "/sessions/test/outputs"
        made = await http.post(path, json={"url": "rtmp://127.0.0.1:9/live/SECRETKEY"})
        assert made.status_code == 201
        assert made.json()["url"] == "rtmp://127.0.0.1:9/live/****"
        id = made.json()["id"]
        assert "already" in detail(await http.post(path, json={"url": "rtmp://127.0.0.1:9/live/SECRETKEY"}), 409)
        assert "names no server" in detail(await http.post(path, json={"url": "rtmp://127.0.0.1"}), 422)
        assert "may be rtmp" in detail(await http.post(path, json={"url": "out.mp4"}), 422)
        await eventually(lambda: session.outputs[0]["state"] in ("retrying", "connecting"))
        assert (await http.get(f"{path}/{id}")).json()["state"] in ("retrying", "connecting")
        texts = [(await http.get(path)).text, (await http.get("/metrics")).text, (await http.get("/sessions")).text]
        assert (await http.delete(f"{path}/{id}")).status_code == 204
        assert "no output" in detail(await http.delete(f"{path}/{id}"), 404)
        assert (await http.get(path)).json() == {"outputs": []}
    assert "SECRETKEY" not in "".join(texts) + caplog.text


async def test_outputs_wait_for_a_stream() -> None:
    async with server() as (http, _):
        made = await http.post("/sessions/live/outputs", json={"url": "rtmp://127.0.0.1:9/live/key12345"})
        assert made.json()["state"] == "waiting"


async def test_events() -> None:
    config = {"sessions": {"test": {"source": "testpattern://?size=160x96&fps=30", "filter": {"name": "pixelate"}}}}
    async with server(**config) as (http, manager):
        session = manager.sessions["test"]
        await eventually(lambda: session.state == "running")
        seen: list[tuple[str, Any]] = []
        with session.events.listening() as listener:
            await http.patch("/sessions/test/params", json={"cell": 20})
            await http.put("/sessions/test/filter", json={"name": "toon"})
            await eventually(lambda: session.meter().get("rung") is not None)
            await asyncio.sleep(0.6)
            session.events.close()
            seen = [(event.name, event.data) async for event in listener]
        names = [name for name, _ in seen]
        assert {"params", "filter", "session", "stats"} <= set(names)
        assert dict(seen)["params"]["cell"] == 20
        assert json.loads(json.dumps(dict(seen)["stats"]))["budget_ms"] == 250


async def test_whip_and_whep() -> None:
    async with server(
        webrtc={"ice_servers": [{"urls": "turn:t.example:3478", "username": "u", "credential": "c"}]}
    ) as (http, manager):
        options = await http.options("/whip/live")
        assert options.status_code == 204
        assert options.headers["accept-post"] == "application/sdp"
        assert 'rel="ice-server"; username="u"' in options.headers["link"]
        async with client(CameraTrack(lambda n: grey(99)), watch=False) as (_, _, sdp):
            assert "Content-Type" in detail(await http.post("/whip/live", content=sdp), 415)
            assert detail(await http.post("/whip/nope", content=sdp, headers=SDP), 404)
            assert "receives no video" in detail(await http.post("/whep/live", content=sdp, headers=SDP), 422)
            assert "begin with v=0" in detail(await http.post("/whip/live", content="x", headers=SDP), 400)
            assert detail(await http.post("/whip/live", content=b"\xff", headers=SDP), 400)
            assert detail(await http.get("/whip/live"), 405)
    async with server() as (http, manager):
        session = manager.sessions["live"]
        async with client(CameraTrack(lambda n: grey(99))) as (connection, _, sdp):
            made = await http.post("/whip/live", content=sdp, headers=SDP)
            assert made.status_code == 201
            assert made.headers["content-type"].startswith("application/sdp")
            where, etag = made.headers["location"], made.headers["etag"]
            fragment = {"Content-Type": "application/trickle-ice-sdpfrag"}
            assert "If-Match" in detail(await http.patch(where, content="", headers=fragment), 428)
            assert detail(await http.patch(where, content="", headers=fragment | {"If-Match": '"x"'}), 412)
            assert detail(await http.patch(where, content="", headers=fragment | {"If-Match": "*"}), 422)
            assert (await http.patch(where, content="", headers=fragment | {"If-Match": etag})).status_code == 204
            await answered(connection, made.text)
            await eventually(lambda: session.state == "running")
            assert (await http.get("/sessions/live")).json()["publisher"] == {"kind": "whip"}
            assert detail(await http.delete(where.replace("whip", "whep")), 404)
            assert (await http.delete(where)).status_code == 200
            await eventually(lambda: not session.peers and session.door.visitor is None)
            assert detail(await http.delete(where), 404)


async def test_viewers_are_limited() -> None:
    async with server(limits={"viewers_per_session": 1}) as (http, manager):
        async with client(watch=True) as (connection, watcher, sdp), client(watch=True) as (_, _, second):
            made = await http.post("/whep/live", content=sdp, headers=SDP)
            await answered(connection, made.text)
            full = await http.post("/whep/live", content=second, headers=SDP)
            assert "no room" in detail(full, 503)
            assert full.headers["retry-after"] == "5"
            await eventually(lambda: len(watcher.times) > 2)
        await http.delete(made.headers["location"])
        await eventually(lambda: manager.viewers == 0)


async def test_publishing_to_a_session_with_a_source_of_its_own() -> None:
    config = {"sessions": {"test": {"source": "testpattern://?size=160x96&fps=30"}}}
    async with server(**config) as (http, _), client(CameraTrack(lambda n: grey(9))) as (_, _, sdp):
        assert "from elsewhere" in detail(await http.post("/whip/test", content=sdp, headers=SDP), 409)


async def test_a_publisher_returns_and_the_viewers_stay() -> None:
    async with server(grace_s=20) as (http, manager), client(watch=True) as (viewer, watcher, sdp):
        session = manager.sessions["live"]
        await answered(viewer, (await http.post("/whep/live", content=sdp, headers=SDP)).text)
        pipelines = set()
        for level in (70, 190):
            async with client(CameraTrack(lambda n, level=level: grey(level))) as (connection, _, offer):
                made = await http.post("/whip/live", content=offer, headers=SDP)
                await answered(connection, made.text)
                await eventually(lambda level=level: abs(watcher.level() - level) < 8)
                pipelines.add(id(session.pipeline))
                await http.delete(made.headers["location"])
            await eventually(lambda: session.door.visitor is None)
            frames = len(watcher.times)
            await eventually(lambda frames=frames: len(watcher.times) > frames + 2)  # it never goes dark
        assert len(pipelines) == 1


async def test_a_stream_follows_its_publishers_size() -> None:
    async with server() as (http, manager), client(watch=True) as (viewer, watcher, sdp):
        session = manager.sessions["live"]
        await answered(viewer, (await http.post("/whep/live", content=sdp, headers=SDP)).text)
        for size in ((320, 240), (240, 320)):
            async with client(CameraTrack(lambda n, size=size: grey(120, size))) as (connection, _, offer):
                await answered(connection, (await http.post("/whip/live", content=offer, headers=SDP)).text)
                shape = (size[1], size[0], 3)
                await eventually(lambda shape=shape: watcher.newest is not None and watcher.newest.shape == shape)
        assert session.describe()["size"] == [240, 320]


async def test_metrics() -> None:
    config = {"sessions": {"test": {"source": "testpattern://?size=160x96&fps=30", "filter": {"name": "pixelate"}}}}
    async with server(**config) as (http, manager):
        session = manager.sessions["test"]
        await eventually(lambda: session.state == "running" and session.meter().get("fps_out", 0) > 20)
        assert (await http.post("/sessions/test/latency", json={"milliseconds": [80, 120.5]})).status_code == 204
        assert "from 0 to" in detail(await http.post("/sessions/test/latency", json={"milliseconds": [1e9]}), 422)
        plain = await http.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        openmetrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")
        lines = dict(line.rsplit(" ", 1) for line in openmetrics.text.splitlines() if not line.startswith("#"))
        assert float(lines['streamfx_frames_total{fate="frames_out",session="test"}']) > 20
        assert float(lines['streamfx_session_running{session="test"}']) == 1
        assert float(lines['streamfx_glass_to_glass_latency_seconds_count{session="test"}']) == 2
        assert float(lines['streamfx_glass_to_glass_latency_seconds_bucket{le="0.1",session="test"}']) == 1
        buckets = [float(value) for name, value in lines.items() if name.startswith("streamfx_latency_seconds_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == float(lines['streamfx_latency_seconds_count{session="test"}']) > 20


async def test_files_and_networks_are_for_whoever_runs_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"name": "sd", "params": {"model": "somewhere/else", "prompt": "a cat"}, "threads": 3}
    async with server(sessions={"live": {"filter": own}, "other": {}}) as (http, manager):
        params = (await http.get("/sessions/live/params")).json()
        assert params["prompt"] == "a cat"
        assert "model" not in params
        assert "model" not in (await http.get("/sessions/live")).json()["filter"]["params"]
        refused = "model is for whoever runs the server"
        asked = {"name": "sd", "params": {"model": "/etc", "prompt": "a dog"}}
        assert refused in detail(await http.put("/sessions/other/filter", json=asked), 422)
        assert refused in detail(await http.post("/sessions", json={"filter": asked}), 422)
        patched = await http.patch("/sessions/live/params", json={"model": "/etc", "prompt": "a dog"})
        assert "reads model only when it starts" in detail(patched, 422)
        assert (await http.get("/sessions/live/params")).json()["prompt"] == "a cat"
        put = await http.put("/sessions/other/filter", json={"name": "sd", "params": {"prompt": "a dog"}})
        assert put.status_code == 200
        choice = manager.sessions["other"]._choice
        assert choice is not None
        assert (choice.params.model, choice.params.prompt, choice.threads) == ("somewhere/else", "a dog", 3)
        demanding = {"name": "sd", "params": {"prompt": "a cat"}}
        monkeypatch.setattr(Sd, "info", replace(Sd.info, needs=("no_such_package",)))
        (listed,) = [f for f in (await http.get("/filters")).json()["filters"] if f["name"] == "sd"]
        assert "pip install 'streamfx[models]'" in listed["lacking"]
        source = {"id": "live-one", "source": "testpattern://?size=160x96&fps=30"}
        assert (await http.post("/sessions", json=source)).status_code == 201
        await eventually(lambda: manager.sessions["live-one"].state == "running")
        refused = "cannot run here: it needs no_such_package"
        assert refused in detail(await http.put("/sessions/live-one/filter", json=demanding), 422)
        (schema,) = [f["schema"] for f in (await http.get("/filters")).json()["filters"] if f["name"] == "sd"]
        assert schema["properties"]["model"]["setup"]


async def test_a_filter_that_cannot_start_does_not_stop_the_stream() -> None:
    config = {
        "sessions": {
            "test": {
                "source": "testpattern://?size=160x96&fps=30",
                "filter": {"name": "tests.unit.filters.sample_filters:Untrained"},
            }
        }
    }
    async with server(**config) as (_, manager):
        session = manager.sessions["test"]
        await eventually(lambda: session.state == "running" and session.describe()["filter"] is None)


async def test_unexpected_errors_stay_ours(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(ServeConfig(rtmp_port=0))
    app: FastAPI = create_app(manager)

    async def broken() -> None:
        raise RuntimeError("rtmp://host/app/SECRETKEY fell over")

    async def refused() -> None:
        raise ProblemError(418, "no coffee", headers={"X-Pot": "tea"})

    app.add_api_route("/broken/it/is/so", broken)
    app.add_api_route("/refused/it/is/so", refused)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert "went wrong in the server" in detail(await http.get("/broken/it/is/so"), 500)
        answer = await http.get("/refused/it/is/so")
        assert detail(answer, 418) == "no coffee"
        assert answer.headers["x-pot"] == "tea"


async def test_the_openapi_tells_of_problems() -> None:
    async with server() as (http, _):
        schema = (await http.get("/openapi.json")).json()
        assert "Problem" in schema["components"]["schemas"]
        patch = schema["paths"]["/sessions/{session_id}/params"]["patch"]["responses"]
        assert list(patch["422"]["content"]) == ["application/problem+json"]
        assert "application/sdp" in schema["paths"]["/{protocol}/{session_id}"]["post"]["requestBody"]["content"]
