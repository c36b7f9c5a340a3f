"""A connection to OBS by obs-websocket 5: requests, and a sentence for each way in which it may fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from streamfx.core.errors import StreamFXError, UsageError

try:
    import simpleobsws
    from websockets.exceptions import WebSocketException
except ImportError as error:
    raise StreamFXError("streamfx obs needs simpleobsws: pip install 'streamfx[obs]'") from error

# At debug level it logs requests whole, keys and tokens in them.
logging.getLogger("simpleobsws").setLevel(logging.INFO)

NOT_FOUND = 600
"""The status of a request for something that OBS does not have."""

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10
_WRONG_PASSWORD = 4009
_SETTINGS = "Tools > WebSocket Server Settings"


class RefusedError(StreamFXError):
    """OBS does not do what it was asked. ``code``: obs-websocket's status."""

    def __init__(self, request: str, code: int, comment: str | None) -> None:
        super().__init__(f"OBS refuses {request} ({code}): {comment or 'it does not say why'}")
        self.code = code


class Obs:
    """An OBS that knows us."""

    def __init__(self, client: simpleobsws.WebSocketClient) -> None:
        self._client = client

    async def ask(self, request: str, **data: Any) -> dict[str, Any]:
        """One request of obs-websocket, with its fields by name. Raises ``RefusedError`` or ``StreamFXError``."""
        try:
            answer = await self._client.call(simpleobsws.Request(request, data or None), timeout=_ANSWER_SECONDS)
        except simpleobsws.MessageTimeout:
            raise StreamFXError(f"OBS did not answer within {_ANSWER_SECONDS} s; is a dialogue open in it?") from None
        except (WebSocketException, simpleobsws.NotIdentifiedError):
            raise StreamFXError("OBS closed the connection") from None
        if not answer.ok():
            raise RefusedError(request, answer.requestStatus.code, answer.requestStatus.comment)
        return answer.responseData or {}


@contextlib.asynccontextmanager
async def connect(address: str, password: str) -> AsyncIterator[Obs]:
    """OBS at ``ws://HOST:PORT``. Raises ``UsageError`` or ``StreamFXError``."""
    _check(address)
    quiet = simpleobsws.IdentificationParameters(eventSubscriptions=0)
    client = simpleobsws.WebSocketClient(address, password, quiet)
    try:
        await _open(client, address)
        await _identify(client, address, password)
        yield Obs(client)
    finally:
        reader = client.recv_task
        await client.disconnect()
        if reader is not None:
            await asyncio.wait([reader])


def _check(address: str) -> None:
    try:
        url = urlsplit(address)
        good = url.scheme in ("ws", "wss") and bool(url.hostname) and url.port != 0 and not url.username
    except ValueError:
        good = False
    if not good:
        raise UsageError("--obs is to be ws://HOST:PORT, as ws://127.0.0.1:4455")


async def _open(client: simpleobsws.WebSocketClient, address: str) -> None:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await client.connect()
    except (OSError, TimeoutError):
        raise StreamFXError(
            f"OBS does not answer at {address}; start it, and enable the WebSocket server under {_SETTINGS}"
        ) from None
    except WebSocketException:
        raise _too_old(address) from None


async def _identify(client: simpleobsws.WebSocketClient, address: str, password: str) -> None:
    greeting = asyncio.create_task(client.wait_until_identified(_CONNECT_SECONDS))
    try:
        await asyncio.wait([greeting, client.recv_task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        greeting.cancel()
        await asyncio.wait([greeting])
    if client.is_identified():
        return
    if client.ws.close_code == _WRONG_PASSWORD:
        wrong = "is not the one it has" if password else "is empty, but OBS wants one"
        raise StreamFXError(f"OBS_WEBSOCKET_PASSWORD {wrong}; {_SETTINGS} > Show Connect Info tells it")
    raise _too_old(address)


def _too_old(address: str) -> StreamFXError:
    return StreamFXError(
        f"what answers at {address} does not speak obs-websocket 5; use OBS 28 or later, which has it built in"
    )
