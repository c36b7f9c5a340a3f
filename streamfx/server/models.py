"""What goes over HTTP as JSON, for validation and for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from streamfx.server.settings import SessionId


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilterRequest(_Request):
    """Which filter is to run. ``name``: null for none."""

    name: str | None = Field(max_length=64, examples=["toon"])
    params: dict[str, Any] = Field(default_factory=dict, max_length=256)


class SessionRequest(_Request):
    """A session to be made."""

    id: SessionId | None = None
    source: str = Field(
        "publish",
        max_length=2048,
        description="`publish`, rtmp(s)://HOST/APP/KEY, rtsp(s)://HOST/PATH, srt://HOST:PORT or testpattern://",
    )
    filter: FilterRequest | None = None
    size: str | None = Field(None, max_length=16, description="WIDTHxHEIGHT; null: the source's", examples=["1280x720"])
    fps: float | None = Field(None, ge=1, le=120)
    budget_ms: float = Field(250, ge=10, le=60_000)


class OutputRequest(_Request):
    """A place to push to."""

    url: str = Field(
        max_length=2048, description="rtmp(s)://HOST/APP/KEY, rtsp(s)://…, srt://HOST:PORT, or a platform: twitch:KEY"
    )


class LatencyReport(_Request):
    """Latencies from capture to glass that a page measured."""

    milliseconds: list[float] = Field(max_length=64)


class Output(BaseModel):
    """An output and how it fares."""

    id: int
    url: str = Field(description="without its key")
    state: Literal["waiting", "connecting", "live", "retrying", "failed", "closed"]
    error: str
    encoder: str = Field("", description="FFmpeg's name of what encodes it; empty before it began")
    sent: int
    dropped: int
    reconnects: int
    bytes: int


class Outputs(BaseModel):
    outputs: list[Output]


class FilterChoiceInfo(BaseModel):
    name: str | None
    params: dict[str, Any]


class Publishing(BaseModel):
    """Where to publish to by RTMP."""

    url: str
    key: str


class Ingest(BaseModel):
    """Where to publish to. ``whip``: a path; ``rtmp``: null if the server takes none."""

    whip: str | None
    rtmp: Publishing | None


class Play(BaseModel):
    """Where to watch: paths."""

    whep: str
    view: str
    hls: str


class Publisher(BaseModel):
    kind: str


class SessionInfo(BaseModel):
    """A session."""

    id: str
    state: Literal["idle", "starting", "running", "ended"]
    source: str
    source_state: str
    publisher: Publisher | None
    viewers: int
    size: tuple[int, int] | None
    fps: float | None
    budget_ms: float
    filter: FilterChoiceInfo | None
    outputs: list[Output]
    ingest: Ingest
    play: Play
    ice_servers: list[dict[str, Any]]


class Sessions(BaseModel):
    sessions: list[SessionInfo]


class FilterDescription(BaseModel):
    """A filter with the JSON schema of its parameters. ``takes``: what it is driven by; for ``audio``, sound alone is
    enough. ``lacking``: what is to be installed before it can run; empty if nothing is."""

    name: str
    summary: str
    takes: Literal["video", "audio"]
    lacking: str = ""
    schema_: dict[str, Any] = Field(alias="schema")


class Filters(BaseModel):
    filters: list[FilterDescription]


class ServerClock(BaseModel):
    """Milliseconds since 1970 by the server's clock."""

    now_ms: float
