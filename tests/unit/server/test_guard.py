"""What stands before the application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from streamfx.server.app import is_public
from streamfx.server.guard import GuardRules, TokenBuckets, guard

TOKEN = "correct-horse-battery"


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())}")


async def stream(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    return StreamingResponse(parts())


APP = Starlette(
    routes=[
        Route(path, echo, methods=["GET", "POST", "OPTIONS"]) for path in ("/", "/sessions", "/healthz", "/static/x.js")
    ]
    + [Route("/stream", stream)]
)


def caller(
    clock: Callable[[], float] | None = None,
    address: str = "127.0.0.1",
    base: str = "http://127.0.0.1:8080",
    **rules: Any,
) -> httpx.AsyncClient:
    given = {"token": "", "trusted_hosts": frozenset({"127.0.0.1", "localhost"}), "public_paths": is_public} | rules
    app = guard(APP, GuardRules(**given), clock or Hand())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url=base)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.text)
    assert body["status"] == response.status_code
    return body


async def test_every_answer_has_the_headers() -> None:
    async with caller() as http:
        for path in ("/", "/stream", "/nowhere"):
            headers = (await http.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "strict-transport-security" not in headers
            assert "access-control-allow-origin" not in headers
        assert (await http.get("/stream")).text == "ab"
    async with caller(tls=True) as http:
        assert "strict-transport-security" in (await http.get("/")).headers


async def test_the_token() -> None:
    async with caller(token=TOKEN, trusted_hosts=None) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/static/x.js")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        refused = await http.get("/sessions")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "token is needed" in problem(refused)["detail"]
        wrong = await http.get("/sessions", headers=bearer("wrong"))
        assert wrong.status_code == 401
        assert "wrong" not in problem(wrong)["detail"].replace("the token is wrong", "")
        assert (await http.get("/sessions", headers=bearer())).status_code == 200
        assert (await http.get("/sessions", headers={"Authorization": f"bearer  {TOKEN} "})).status_code == 200
        assert (await http.get("/sessions", headers={"Authorization": f"Basic {TOKEN}"})).status_code == 401


async def test_players_may_send_the_token_as_a_password() -> None:
    rules = {"token": TOKEN, "trusted_hosts": None, "player_paths": lambda path: path == "/stream"}
    async with caller(**rules) as http:
        refused = await http.get("/stream")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert (await http.get("/stream", auth=("", TOKEN))).status_code == 200
        assert (await http.get("/stream", auth=("obs", TOKEN))).status_code == 200
        assert (await http.get("/stream", headers=bearer())).status_code == 200
        for wrong in ("Basic", "Basic !!!", f"Basic {TOKEN}", "Basic b2JzOg==", "Basic b2JzOndyb25n", b"Basic \xff"):
            assert (await http.get("/stream", headers={"Authorization": wrong})).status_code == 401
        other = await http.get("/sessions", auth=("", TOKEN))
        assert other.status_code == 401
        assert "Basic" not in other.headers["www-authenticate"], "a browser would ask its user for a password"


async def test_guessing_is_slowed_down(caplog: pytest.LogCaptureFixture) -> None:
    clock = Hand()
    async with caller(clock, token=TOKEN, trusted_hosts=None, auth_failures_per_minute=3) as http:
        for _ in range(3):
            assert (await http.get("/sessions", headers=bearer("guess-guess"))).status_code == 401
        blocked = await http.get("/sessions", headers=bearer())
        assert blocked.status_code == 429
        assert int(blocked.headers["retry-after"]) >= 1
        clock.now += 61
        assert (await http.get("/sessions", headers=bearer())).status_code == 200
    assert "guess-guess" not in caplog.text
    assert TOKEN not in caplog.text


async def test_names_that_point_here() -> None:
    async with caller(base="http://evil.example:8080") as http:
        refused = await http.get("/sessions")
        assert refused.status_code == 421
        assert "own address" in problem(refused)["detail"]
    async with caller(base="http://localhost:9") as http:
        assert (await http.get("/sessions")).status_code == 200
    async with caller(base="http://evil.example", token=TOKEN, trusted_hosts=None) as http:
        assert (await http.get("/sessions", headers=bearer())).status_code == 200


async def test_pages_of_other_sites() -> None:
    async with caller() as http:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://["):
            assert (await http.post("/sessions", headers={"Origin": origin})).status_code == 403
        assert (await http.post("/sessions", headers={"Origin": "http://127.0.0.1:8080"})).status_code == 200
        assert (await http.post("/sessions")).status_code == 200
    site = "https://studio.example"
    async with caller(cors_origins=frozenset({site})) as http:
        allowed = await http.post("/sessions", headers={"Origin": site})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == site
        assert "Location" in allowed.headers["access-control-expose-headers"]
        assert (
            "access-control-allow-origin" not in (await http.get("/", headers={"Origin": "http://x.example"})).headers
        )


async def test_preflights() -> None:
    ask = {"Access-Control-Request-Method": "POST"}
    site = "https://studio.example"
    async with caller(token=TOKEN, trusted_hosts=None, cors_origins=frozenset({site})) as http:
        allowed = await http.options("/sessions", headers=ask | {"Origin": site})
        assert allowed.status_code == 204
        assert "Authorization" in allowed.headers["access-control-allow-headers"]
        other = await http.options("/sessions", headers=ask | {"Origin": "https://x.example"})
        assert other.status_code == 204
        assert not [name for name in other.headers if name.startswith("access-control")]
        assert (await http.options("/sessions")).status_code == 401


async def test_bodies_that_are_too_large() -> None:
    async with caller(max_body=10) as http:
        assert (await http.post("/sessions", content=b"1234567890")).text == "10"
        stated = await http.post("/sessions", content=b"12345678901")
        assert stated.status_code == 413
        assert "10 bytes" in problem(stated)["detail"]

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"abcd"

        assert (await http.post("/sessions", content=parts())).status_code == 413
        assert (await http.post("/sessions", headers={"Content-Length": "x1"})).status_code == 400


async def test_the_rate_is_limited_by_address() -> None:
    clock = Hand()
    app = guard(APP, GuardRules("", None, is_public, rate=2, burst=3), clock)

    async def get(address: str, path: str = "/sessions") -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.get(path)

    assert [(await get("10.0.0.1")).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert (await get("10.0.0.1")).headers["retry-after"] == "1"
    assert (await get("10.0.0.2")).status_code == 200
    assert (await get("10.0.0.1", "/healthz")).status_code == 200
    assert (await get("10.0.0.1", "/static/x.js")).status_code == 200
    clock.now += 0.5
    assert (await get("10.0.0.1")).status_code == 200
    assert [(await get(f"2001:db8::{n}")).status_code for n in range(4)] == [200, 200, 200, 429]


def test_buckets_are_bounded() -> None:
    buckets = TokenBuckets(1, 5, Hand())
    for n in range(10_000):
        buckets.take(str(n))
    assert len(buckets._buckets) <= 4096


@given(st.lists(st.tuples(st.sampled_from(["host", "origin", "authorization", "content-length"]), st.binary())))
@settings(max_examples=200, deadline=None)
async def test_odd_headers_never_hurt(headers: list[tuple[str, bytes]]) -> None:
    app = guard(APP, GuardRules(TOKEN, frozenset({"x"}), is_public), Hand())
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    raw = [(name.encode(), value) for name, value in headers]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/sessions",
        "raw_path": b"/sessions",
        "query_string": b"",
        "headers": raw,
        "client": ("::1%lo", 1),
        "scheme": "http",
        "server": ("x", 80),
        "http_version": "1.1",
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert len(statuses) == 1
    assert statuses[0] < 500


async def test_websockets_are_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await guard(APP, GuardRules("", None, is_public))({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
