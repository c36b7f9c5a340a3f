"""What stands before the application: who may call, how often, how much; and what every answer says to browsers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamfx.server.problems import MEDIA_TYPE, problem_body

logger = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self), fullscreen=(self), display-capture=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_MOST_ADDRESSES = 4096


@dataclass(frozen=True, slots=True)
class GuardRules:
    """``token``: bearer token every call needs, empty for none. ``trusted_hosts``: host names by which a server without
    a token may be called (another one means that a web site has its name point to us); None: any. ``public_paths``:
    what needs no token. ``player_paths``: what players ask for, which know passwords only: there the token will also do
    as one (HTTP Basic, any name). ``rate``, ``burst``: requests per second and at once from one address.
    ``cors_origins``: web sites whose pages may call us."""

    token: str
    trusted_hosts: frozenset[str] | None
    public_paths: Callable[[str], bool]
    player_paths: Callable[[str], bool] = lambda path: False
    max_body: int = 262_144
    rate: float = 50.0
    burst: int = 150
    auth_failures_per_minute: int = 20
    cors_origins: frozenset[str] = frozenset()
    tls: bool = False


class _Refusal(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class TokenBuckets:
    """A token bucket for each address; the ones heard of last are remembered."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, cost: float = 1.0) -> float:
        """Takes ``cost`` tokens. Returns 0, or how many seconds to wait if there are not so many (then none is
        taken)."""
        tokens = self._fill(address)
        if tokens < cost:
            return (cost - tokens) / self._rate
        self._keep(address, tokens - cost)
        return 0.0

    def wait(self, address: str) -> float:
        """Seconds until ``take`` would work; 0 if it would now."""
        return max(0.0, (1.0 - self._fill(address)) / self._rate)

    def _fill(self, address: str) -> float:
        now = self._now()
        tokens, at = self._buckets.get(address, (self._burst, now))
        return min(self._burst, tokens + (now - at) * self._rate)

    def _keep(self, address: str, tokens: float) -> None:
        self._buckets[address] = tokens, self._now()
        self._buckets.move_to_end(address)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)


def guard(app: ASGIApp, rules: GuardRules, now: Callable[[], float] = time.monotonic) -> ASGIApp:
    """``app`` behind the rules. ``now``: seconds of a monotonic clock."""
    return _Guard(app, rules, now)


class _Guard:
    def __init__(self, app: ASGIApp, rules: GuardRules, now: Callable[[], float]) -> None:
        self._app = app
        self._rules = rules
        self._digest = hashlib.sha256(rules.token.encode()).digest()
        self._requests = TokenBuckets(rules.rate, rules.burst, now)
        failures = rules.auth_failures_per_minute
        self._failures = TokenBuckets(failures / 60, failures, now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            # There are no WebSockets here: refuse the handshake.
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        answer = _Answer(send, self._always(origin))
        try:
            if self._is_preflight(scope, headers):
                await answer.finish(204, b"", self._preflight_headers(origin))
                return
            self._check(scope, headers, origin)
            body = _Body(receive, self._rules.max_body, headers)

            async def answer_unless_too_large(message: Message) -> None:
                # What the application says to a body that broke off is not what the caller is to hear.
                if not body.too_large:
                    await answer.send(message)

            try:
                await self._app(scope, body.receive, answer_unless_too_large)
            except Exception:
                if not body.too_large:
                    raise
            if body.too_large:
                raise _too_large(self._rules.max_body)
        except _Refusal as refusal:
            if not answer.started:
                body_bytes = problem_body(refusal.status, refusal.detail)
                await answer.finish(refusal.status, body_bytes, {"Content-Type": MEDIA_TYPE} | refusal.headers)

    def _check(self, scope: Scope, headers: Headers, origin: str) -> None:
        """Raises ``_Refusal`` for what may not pass."""
        address = _address(scope)
        path = scope["path"]
        self._check_host(headers)
        if scope["method"] in _CHANGING and origin and not self._is_ours(origin, headers.get("host", "")):
            raise _Refusal(403, "a page of another web site may not do this; allow its origin under cors_origins")
        if not path.startswith("/static/") and path not in ("/healthz", "/readyz"):
            wait = self._requests.take(address)
            if wait:
                raise _Refusal(429, "too many requests from this address; slow down", _retry_after(wait))
        if self._rules.token and not self._rules.public_paths(path):
            self._authenticate(address, headers, self._rules.player_paths(path))

    def _check_host(self, headers: Headers) -> None:
        trusted = self._rules.trusted_hosts
        if trusted is None:
            return
        name = _host_name(headers.get("host", ""))
        if name not in trusted:
            raise _Refusal(421, "this server answers to its own address only; call it by that, or set a token")

    def _is_ours(self, origin: str, host: str) -> bool:
        if origin in self._rules.cors_origins:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False

    def _authenticate(self, address: str, headers: Headers, player: bool) -> None:
        wait = self._failures.wait(address)
        if wait:
            raise _Refusal(429, "too many wrong tokens from this address; wait a minute", _retry_after(wait))
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if player and scheme.lower() == "basic":
            scheme, token = "bearer", _password(token)
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() == "bearer" and hmac.compare_digest(given, self._digest):
            return
        if token:
            self._failures.take(address)
            logger.warning("wrong token address=%s", address)
        sentence = "the token is wrong" if token else "a token is needed"
        # A browser asks its user for a password when it hears of Basic: the page has its own way.
        header = {"WWW-Authenticate": ('Basic realm="streamfx", ' if player else "") + 'Bearer realm="streamfx"'}
        raise _Refusal(401, f"{sentence}; send the server's as `Authorization: Bearer TOKEN`", header)

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        return scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers

    def _preflight_headers(self, origin: str) -> dict[str, str]:
        if origin not in self._rules.cors_origins:
            return {}
        return {
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
            "Access-Control-Max-Age": "600",
        }

    def _always(self, origin: str) -> dict[str, str]:
        """Headers of every answer."""
        headers = dict(_HEADERS)
        if self._rules.tls:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if self._rules.cors_origins:
            headers["Vary"] = "Origin"
        if origin in self._rules.cors_origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Retry-After, Accept-Patch"
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return headers


class _Answer:
    """The way out: adds the headers of every answer."""

    def __init__(self, send: Send, headers: dict[str, str]) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def finish(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """A whole answer of our own."""
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if status != 204:
            raw.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})


class _Body:
    """The way in: counts the body, and breaks off when it gets too large."""

    def __init__(self, receive: Receive, most: int, headers: Headers) -> None:
        self._receive = receive
        self._most = most
        self._seen = 0
        self.too_large = False
        stated = headers.get("content-length")
        if stated is not None:
            if not (stated.isascii() and stated.isdigit()):
                raise _Refusal(400, "Content-Length is not a number")
            if int(stated[:20]) > most:
                raise _too_large(most)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._most:
                self.too_large = True
                return {"type": "http.disconnect"}
        return message


def _too_large(most: int) -> _Refusal:
    return _Refusal(413, f"the body is larger than {most} bytes; send less at once")


def _password(credentials: str) -> str:
    """The password in Basic credentials; for what is no such thing a text that is too short for a token."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return "?"


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def _host_name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _address(scope: Scope) -> str:
    """Who calls; of IPv6, the network: one customer has a whole /64 of them."""
    client = scope.get("client")
    text = str(client[0]) if client else "unknown"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return text if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
