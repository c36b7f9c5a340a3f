"""Tags between a connection and its decoder: bounded, and when it overflows, clean at the seam."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from streamfx.core.errors import StreamFXError
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.flv import parse_video

_MOST_TAGS = 400
_MOST_BYTES = 32 << 20


class TagQueue:
    """Holds what the decoder has not taken yet. When it holds too much, all of it goes, and pictures are left out up
    to the next key frame (configurations are always kept); ``dropped`` counts them."""

    def __init__(self) -> None:
        self._items: deque[FlvTag | Literal["restart"]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = False
        self._skipping = False
        self.dropped = 0

    def put(self, tag: FlvTag) -> None:
        """Takes a tag; never waits."""
        if len(self._items) >= _MOST_TAGS or self._bytes + len(tag.body) > _MOST_BYTES:
            kept = [item for item in self._items if item == "restart" or _kind(item) == "config"]
            self.dropped += len(self._items) - len(kept)
            self._items = deque(kept)
            self._bytes = sum(len(item.body) for item in kept if item != "restart")
            self._skipping = True
        if self._skipping and tag.kind == "video":
            kind = _kind(tag)
            if kind == "frame":
                self.dropped += 1
                return
            self._skipping = kind != "key"
        self._items.append(tag)
        self._bytes += len(tag.body)
        self._news.set()

    def restart(self) -> None:
        """Another sender follows."""
        self._skipping = False
        self._items.append("restart")
        self._news.set()

    def close(self) -> None:
        """What is here is still given, then None."""
        self._closed = True
        self._news.set()

    async def get(self) -> FlvTag | Literal["restart"] | None:
        while not self._items:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        if item != "restart":
            self._bytes -= len(item.body)
        return item


def _kind(tag: FlvTag) -> Literal["config", "key", "frame", "other"]:
    """What a tag means for the seam."""
    if tag.kind == "audio":
        # An AAC configuration comes once, and without it there is no sound.
        is_config = tag.body[:2] == b"\xaf\x00" or (tag.body[:1] and tag.body[0] >> 4 == 9 and tag.body[0] & 15 == 0)
        return "config" if is_config else "other"
    if tag.kind != "video":
        return "other"
    try:
        packet = parse_video(tag.body)
    except StreamFXError:
        return "frame"
    if packet.kind == "config":
        return "config"
    return "key" if packet.keyframe else "frame"
