"""``streamfx serve`` as a process, against real programs and independent clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from tests.e2e.browser import Server, server
from tests.integration.programs import ffmpeg, needs_ffmpeg, needs_nginx, record
from tests.support import look_into, streamfx
from tests.unit.webrtc.clients import CameraTrack, ToneTrack, answered, client, grey, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SDP = {"Content-Type": "application/sdp"}


@contextlib.asynccontextmanager
async def publishing(running: Server, level: int = 120) -> AsyncIterator[str]:
    """An aiortc client that publishes grey pictures and a tone by WHIP; gives its resource."""
    async with client(CameraTrack(lambda n: grey(level)), ToneTrack()) as (connection, _, sdp):
        made = await running.http.post("/whip/live", content=sdp, headers=SDP)
        assert made.status_code == 201, made.text
        await answered(connection, made.text)
        yield made.headers["location"]
        await running.http.delete(made.headers["location"])


async def test_whip_to_whep() -> None:
    async with server() as running, publishing(running, 150):
        for codec in ("H264", "VP8"):
            async with client(watch=True, codec=codec) as (connection, watcher, sdp):
                made = await running.http.post("/whep/live", content=sdp, headers=SDP)
                await answered(connection, made.text)
                await until(lambda watcher=watcher: abs(watcher.level() - 150) < 6)
                await until(lambda watcher=watcher: len(watcher.sound) > 20)
                await running.http.delete(made.headers["location"])


@needs_ffmpeg
async def test_rtmp_feeds_the_same_session() -> None:
    async with server("--filter", "passthrough") as running:
        live = await running.get("/sessions/live")
        address = f"{live['ingest']['rtmp']['url']}/{live['ingest']['rtmp']['key']}"
        async with client(watch=True) as (connection, watcher, sdp):
            made = await running.http.post("/whep/live", content=sdp, headers=SDP)
            await answered(connection, made.text)
            await until(lambda: len(watcher.times) > 2)  # the slate
            async with ffmpeg(address):
                await running.until("/sessions/live", lambda s: s["publisher"] == {"kind": "rtmp"})
                await until(lambda: watcher.newest is not None and watcher.newest.shape == (240, 320, 3), 20)
                await until(lambda: watcher.newest is not None and float(watcher.newest.std()) > 50)
                assert (await running.get("/sessions/live"))["state"] == "running"
            await running.until("/sessions/live", lambda s: s["publisher"] is None)
            # A browser takes over from OBS, in the same session, with the same viewer.
            async with publishing(running, 200):
                await until(lambda: abs(watcher.level() - 200) < 8, 20)


@needs_nginx
async def test_a_push_begins_and_ends_mid_stream(nginx: int, tmp_path: Path) -> None:
    async with server() as running, publishing(running, 90):
        await running.until("/sessions/live", lambda s: s["state"] == "running")
        url = f"rtmp://127.0.0.1:{nginx}/live/platformkey"
        made = await running.http.post("/sessions/live/outputs", json={"url": url})
        assert made.status_code == 201
        where = made.headers["location"]
        await running.until(where, lambda output: output["state"] == "live" and output["sent"] > 30)
        await record(url, tmp_path / "pushed.mkv", 2)
        assert len(look_into(tmp_path / "pushed.mkv").video) > 25
        assert (await running.http.delete(where)).status_code == 204
        assert (await running.get("/sessions/live"))["state"] == "running"


@needs_nginx
async def test_an_output_chosen_beforehand_begins_with_the_stream(nginx: int) -> None:
    async with server() as running:
        made = await running.http.post("/sessions/live/outputs", json={"url": f"rtmp://127.0.0.1:{nginx}/live/early1"})
        async with publishing(running):
            await running.until(made.headers["location"], lambda output: output["state"] == "live")


def resources(pid: int) -> dict[str, float]:
    """What a process holds: sockets and files, threads, children, megabytes."""
    process = psutil.Process(pid)
    return {
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "memory": process.memory_info().rss / 2**20,
    }


async def settled(running: Server, before: dict[str, float]) -> dict[str, float]:
    """Its resources once they are down to what they were, or after 15 s."""
    after = before
    for _ in range(150):
        after = resources(running.process.pid)
        if all(after[name] <= before[name] + 2 for name in ("files", "threads", "children")):
            break
        await asyncio.sleep(0.1)
    return after


MUTATIONS = st.sampled_from(
    ["truncate", "drop", "repeat", "swap", "bytes", "huge", "fingerprint", "mline", "candidate"]
)


def broken(sdp: str, kinds: list[str], where: list[float], noise: bytes) -> bytes:
    """An offer with things wrong with it."""
    lines = sdp.split("\r\n")
    for kind, share in zip(kinds, where, strict=False):
        lines = lines or [""]
        at = int(share * (len(lines) - 1))
        if kind == "truncate":
            lines = lines[: at + 1]
        elif kind == "drop":
            del lines[at]
        elif kind == "repeat":
            lines[at:at] = [lines[at]] * 30
        elif kind == "swap":
            lines[at], lines[-1] = lines[-1], lines[at]
        elif kind == "bytes":
            lines[at] += noise.decode("latin-1")
        elif kind == "huge":
            lines[at] += "9" * 20_000
        elif kind == "fingerprint":
            lines = [line.replace("sha-256", "sha-999").replace(":A", ":Z") for line in lines]
        elif kind == "mline":
            lines = [line.replace("m=video 9", "m=video 99999999999") for line in lines]
        else:
            lines.insert(at, "a=candidate:1 1 udp x 999.1.1.1 -5 typ nothing")
    return "\r\n".join(lines).encode("utf-8", "replace")


async def test_five_hundred_bad_offers_leave_nothing() -> None:
    limits = (
        "limits: {requests_per_second: 10000, requests_burst: 100000}\ngrace_s: 1\nwebrtc: {connect_timeout_s: 1}\n"
    )
    async with configured(limits) as running, client(CameraTrack(lambda n: grey(9)), watch=True) as (_, _, sdp):
        offers: list[bytes] = []

        @given(
            st.lists(MUTATIONS, min_size=1, max_size=3),
            st.lists(st.floats(0, 1), min_size=3, max_size=3),
            st.binary(max_size=30),
        )
        @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def collect(kinds: list[str], where: list[float], noise: bytes) -> None:
            offers.append(broken(sdp, kinds, where, noise))

        collect()
        for offer in offers[:50]:  # what is loaded once is loaded now
            await running.http.post("/whip/live", content=offer, headers=SDP)
        await asyncio.sleep(3)
        before = resources(running.process.pid)
        statuses: dict[int, int] = {}
        for offer in offers:
            answer = await running.http.post("/whip/live", content=offer, headers=SDP)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code == 201 or 400 <= answer.status_code < 500, answer.text
            if answer.status_code == 201:  # harmless after all, as with a line that says nothing new
                await running.http.delete(answer.headers["location"])
        assert sum(statuses.values()) >= 500
        assert statuses.get(400, 0) > 200
        after = await settled(running, before)
        for name in ("files", "threads", "children"):
            assert after[name] <= before[name] + 2, (before, after)
        assert after["memory"] < before["memory"] + 40, (before, after)
        assert (await running.get("/sessions/live"))["viewers"] == 0


async def test_thirty_cycles_leave_nothing() -> None:
    limits = "limits: {requests_per_second: 10000, requests_burst: 100000}\ngrace_s: 1\n"
    async with configured(limits) as running:
        memory = []
        before: dict[str, float] = {}
        for cycle in range(35):
            if cycle == 5:
                before = await settled(running, resources(running.process.pid))
            async with publishing(running), client(watch=True) as (connection, watcher, sdp):
                made = await running.http.post("/whep/live", content=sdp, headers=SDP)
                await answered(connection, made.text)
                await until(lambda watcher=watcher: len(watcher.times) > 2)
                if cycle % 2:  # half of them just go away
                    await running.http.delete(made.headers["location"])
            memory.append(resources(running.process.pid)["memory"])
        await running.until("/sessions/live", lambda s: s["viewers"] == 0 and s["state"] == "idle", 30)
        after = await settled(running, before)
        for name in ("files", "threads", "children"):
            assert after[name] <= before[name] + 2, (before, after)
        assert memory[-1] < memory[5] + 30, memory


@contextlib.asynccontextmanager
async def configured(text: str, *arguments: str, token: str = "") -> AsyncIterator[Server]:
    """A server with a configuration file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(text)
        async with server("--config", str(path), *arguments, token=token) as running:
            yield running


async def test_no_request_makes_the_server_fail() -> None:
    """Everything that the OpenAPI description allows, and what it does not."""
    text = "limits: {requests_per_second: 10000, requests_burst: 100000, sessions: 12}\nfilter: pixelate\n"
    async with configured(text) as running:
        await asyncio.to_thread(explore, running.address)
        live = await running.until(
            "/sessions", lambda answer: any(s["id"] == "live" for s in answer["sessions"]) or True
        )
        assert isinstance(live["sessions"], list)


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(context: object, value: object) -> bytes:
    return str(value).encode("utf-8", "replace")


def explore(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", config=SchemathesisConfig())
    # Streams of events do not end by themselves.
    chosen = schema.exclude(path_regex="/events$")

    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=address, timeout=20) as http:
        for result in chosen.get_all_operations():
            operation = result.ok()

            @given(case=operation.as_strategy())
            @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def each(case: schemathesis.Case) -> None:
                ends_it = case.method == "DELETE" and case.path.endswith("{session_id}")
                if sum(statuses.values()) % 2 and "session_id" in case.path_parameters and not ends_it:
                    case.path_parameters["session_id"] = "live"
                given_arguments = case.as_transport_kwargs()
                answer = http.request(
                    given_arguments["method"],
                    str(given_arguments["url"]).removeprefix(address),
                    params=given_arguments.get("params"),
                    headers={name: str(value) for name, value in (given_arguments.get("headers") or {}).items()},
                    json=given_arguments.get("json"),
                    content=given_arguments.get("data"),
                )
                statuses[answer.status_code] += 1
                assert answer.status_code < 500 or answer.status_code == 503, (case.method, case.path, answer.text)
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] == "application/problem+json", answer.text

            each()
    assert sum(statuses.values()) > 200
    assert {200, 204, 400, 404, 422} <= set(statuses), statuses


async def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key),
        "-out", str(certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await make.wait() == 0
    context = ssl.create_default_context(cafile=str(certificate))
    async with server("--tls-cert", str(certificate), "--tls-key", str(key), verify=context) as running:
        answer = await running.http.get("/sessions")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--host", "0.0.0.0"], {}, "a token is needed: set STREAMFX_TOKEN"),
        (["--host", "0.0.0.0"], {"STREAMFX_TOKEN": "short"}, "less than 16 characters"),
        (["--host", "203.0.113.1", "--port", "8099"], {"STREAMFX_TOKEN": "x" * 20}, "choose another with --port"),
        (["--tls-cert", "nothing.pem"], {}, "both a certificate and its key"),
        (["--tls-cert", "nothing.pem", "--tls-key", "nothing.pem"], {}, "does not exist"),
        (["--filter", "tooon"], {}, "did you mean 'toon'"),
        (["--filter", "toon", "--set", "ink=9"], {}, "ink = '9' is not possible"),
        (["--config", "nothing.yaml"], {}, "does not exist"),
    ],
)
def test_what_keeps_it_from_starting(arguments: list[str], environment: dict[str, str], says: str) -> None:
    answer = streamfx("serve", *arguments, env=os.environ | {"COLUMNS": "300"} | environment)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err


async def test_a_port_in_use() -> None:
    async with server() as running:
        port = running.address.rpartition(":")[2]
        answer = await asyncio.to_thread(streamfx, "serve", "--port", port)
        assert answer.code == 2
        assert "another program uses it" in answer.err
        rtmp = await asyncio.to_thread(streamfx, "serve", "--port", "0", "--rtmp-port", str(running.rtmp_port))
        assert rtmp.code == 1
        assert "already in use" in rtmp.err
