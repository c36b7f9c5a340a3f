"""What a streamfx server tells of a session: where OBS watches it, and where it publishes to it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from streamfx.core.errors import StreamFXError, UsageError

_SECONDS = 5.0


@dataclass(frozen=True)
class WatchedSession:
    """A session by its addresses. ``rtmp``: server and key, None where the server or the session takes none, and so
    ``whip``; ``size``: None until it is known."""

    id: str
    size: tuple[int, int] | None
    page: str
    playlist: str
    whip: str | None
    rtmp: tuple[str, str] | None = field(repr=False)
    token: str = field(repr=False)

    def page_address(self, sound: bool) -> str:
        """Of the bare player, with the token where a server never sees it."""
        return (
            self.page + ("?audio=1" if sound else "") + (f"#token={quote(self.token, safe='')}" if self.token else "")
        )


def fetch_session(server: str, id: str, token: str) -> WatchedSession:
    """Asks the server. Blocks for some seconds at most. Raises ``UsageError`` or ``StreamFXError``."""
    url = urlsplit(server)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme not in ("http", "https") or not host or url.path not in ("", "/") or url.query or url.username:
        raise UsageError("--server is to be http(s)://HOST:PORT, as http://127.0.0.1:8080")
    base = f"{url.scheme}://{url.netloc}"
    told = _get(url.scheme, host, port, base, f"/sessions/{quote(id, safe='')}", id, token)
    try:
        rtmp, whip, size = told["ingest"]["rtmp"], told["ingest"]["whip"], told["size"]
        return WatchedSession(
            id=id,
            size=(int(size[0]), int(size[1])) if size else None,
            page=base + told["play"]["view"],
            playlist=base + told["play"]["hls"],
            whip=base + whip if whip else None,
            rtmp=(rtmp["url"], rtmp["key"]) if rtmp else None,
            token=token,
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise _not_streamfx(base) from None


def _get(scheme: str, host: str, port: int | None, base: str, path: str, id: str, token: str) -> dict[str, Any]:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        status, body = answer.status, answer.read(1_000_000)
    except ValueError:
        raise UsageError("STREAMFX_TOKEN has a line break or a letter that is not ASCII in it") from None
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise StreamFXError(f"nobody answers at {base} ({reason}); start it with: streamfx serve") from None
    except http.client.HTTPException:
        raise _not_streamfx(base) from None
    finally:
        connection.close()
    if status == 401:
        wrong = "does not take the token in STREAMFX_TOKEN" if token else "wants its token, in STREAMFX_TOKEN"
        raise StreamFXError(f"the server at {base} {wrong}")
    if status == 404:
        raise UsageError(f"the server at {base} has no session {id!r}")
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if status != 200 and isinstance(told, dict) and isinstance(told.get("detail"), str):
        raise StreamFXError(f"the server at {base} refuses: {told['detail']}")
    if status != 200 or not isinstance(told, dict):
        raise _not_streamfx(base)
    return told


def _not_streamfx(base: str) -> StreamFXError:
    return StreamFXError(f"what answers at {base} is no streamfx server; name the right one with --server")
