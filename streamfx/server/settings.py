"""The YAML file of a server, and the rules for what it may be asked from outside."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from aiortc import RTCIceServer
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from streamfx.config import EncodeConfig, FilterConfig, StreamConfig, read_config
from streamfx.core.errors import UsageError
from streamfx.filters.chain import Chain
from streamfx.filters.registry import AnyFilter, load, setup_fields, target_of
from streamfx.media import srt
from streamfx.media.platforms import output_url
from streamfx.media.url import MediaUrl
from streamfx.media.webrtc.broadcast import BroadcastSettings
from streamfx.media.webrtc.peer import PeerSettings
from streamfx.pipeline.settings import SessionSettings

_STREAMS = ("rtmp", "rtmps", "rtsp", "rtsps", "srt")

PUBLISH = "publish"
"""The source of a session that takes whoever publishes to it, by WHIP or RTMP."""

SESSION_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")

SessionId = Annotated[str, Field(pattern=f"^{SESSION_ID.pattern}$", description="a-z, 0-9 and -, up to 40 of them")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionConfig(StreamConfig):
    """One session of a server."""

    source: str = Field(PUBLISH, description="`publish`, or a file or URL the stream comes from")
    rtmp_key: SecretStr | None = Field(None, description="stream key for publishing by RTMP; none: a random one")

    @property
    def published(self) -> bool:
        return self.source == PUBLISH


class IceServerConfig(_Strict):
    """A STUN or TURN server, for us and for browsers."""

    urls: list[str] = Field(min_length=1, description="stun:HOST:PORT, turn:HOST:PORT?transport=udp, …")
    username: str | None = None
    credential: SecretStr | None = None

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _schemes(cls, value: list[str]) -> list[str]:
        for url in value:
            if not re.fullmatch(r"(stun|stuns|turn|turns):[^\s:?]+(:\d+)?(\?transport=(udp|tcp))?", url):
                raise ValueError(f"{url!r} is no ICE server; write stun:HOST:PORT or turn:HOST:PORT?transport=udp")
        return value

    def as_browser_dict(self) -> dict[str, Any]:
        """As ``RTCPeerConnection`` wants it."""
        values: dict[str, Any] = {"urls": self.urls}
        if self.username is not None:
            values["username"] = self.username
        if self.credential is not None:
            values["credential"] = self.credential.get_secret_value()
        return values


class WebRtcConfig(_Strict):
    """Connections to publishers and viewers."""

    ice_servers: list[IceServerConfig] = Field(default_factory=list)
    public_addresses: list[str] = Field(
        default_factory=list, description="IP addresses under which this machine is reached from outside (1:1 NAT)"
    )
    codecs: list[Literal["H264", "VP8"]] = Field(["H264", "VP8"], min_length=1, description="for viewers, best first")
    video_kbps: int = Field(0, ge=0, le=50_000, description="cap for viewers; 0: by size, 2800 at 1280x720")
    low_kbps: int = Field(0, ge=0, le=50_000, description="cap for viewers with bad networks; 0: a quarter of that")
    audio_kbps: int = Field(96, ge=16, le=510)
    key_every_ms: float = Field(500, ge=100, le=10_000, description="least time between key frames viewers ask for")
    connect_timeout_s: float = Field(15, ge=1, le=120)
    silence_timeout_s: float = Field(8, ge=1, le=120, description="without a packet for so long a peer is ended")

    @field_validator("public_addresses")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for address in value:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"{address!r} is no IP address") from None
        return value

    def peer_settings(self) -> PeerSettings:
        return PeerSettings(
            ice_servers=tuple(RTCIceServer(**server.as_browser_dict()) for server in self.ice_servers),
            public_addresses=tuple(self.public_addresses),
            codecs=tuple(self.codecs),
            connect_timeout=self.connect_timeout_s,
            silence_timeout=self.silence_timeout_s,
        )

    def broadcast_settings(self) -> BroadcastSettings:
        return BroadcastSettings(self.video_kbps, self.low_kbps, self.audio_kbps, self.key_every_ms / 1e3)


class LimitsConfig(_Strict):
    """What the server bears."""

    sessions: int = Field(8, ge=1, le=1000)
    viewers: int = Field(64, ge=1, le=100_000, description="of all sessions together")
    viewers_per_session: int = Field(32, ge=1, le=100_000)
    requests_per_second: float = Field(50, gt=0, le=100_000, description="from one address, in the long run")
    requests_burst: int = Field(150, ge=1, le=100_000)
    body_bytes: int = Field(262_144, ge=1024, le=100_000_000)


class ServeConfig(_Strict):
    """One server. Most keys may also be given as a flag of `streamfx serve`, which wins."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all, which needs a token")
    port: int = Field(8080, ge=0, le=65_535)
    rtmp_port: int | None = Field(
        None, ge=0, le=65_535, description="for publishing by RTMP; 0: off, none: 1935 if it is free"
    )
    token: SecretStr | None = Field(None, description="bearer token that every call needs; none: only on loopback")
    tls_cert: Path | None = Field(None, description="certificate chain in PEM")
    tls_key: Path | None = Field(None, description="its private key in PEM")
    cors_origins: list[str] = Field(default_factory=list, description="other web sites whose pages may call us")
    filter: FilterConfig | None = Field(None, description="of the session `live`, unless that is under `sessions`")
    outputs: list[str] = Field(default_factory=list, description="of the session `live`; `to:` is the same")
    encode: EncodeConfig = Field(
        default_factory=EncodeConfig, description="how outputs are encoded, of sessions that have no `encode`"
    )
    sessions: dict[SessionId, SessionConfig] = Field(default_factory=dict)
    grace_s: float = Field(60, ge=0, le=86_400, description="how long a publisher may be away until its stream ends")
    drain_s: float = Field(10, ge=0, le=3600, description="what streams get at most to go out when the server ends")
    webrtc: WebRtcConfig = Field(default_factory=WebRtcConfig)
    limits: LimitsConfig = Field(default_factory=LimitsConfig)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def secret(self) -> str:
        """The token; empty if none is needed."""
        return self.token.get_secret_value() if self.token else ""

    def check(self) -> None:
        """Raises ``UsageError`` for what must not be started."""
        if not self.on_loopback and not self.secret:
            raise UsageError(
                f"{self.host} can be reached from other machines, so a token is needed: set STREAMFX_TOKEN to one of "
                "at least 16 characters (for example with: export STREAMFX_TOKEN=$(openssl rand -hex 16)), or `token:` "
                "in the configuration"
            )
        if self.secret and len(self.secret) < 16:
            raise UsageError("the token has less than 16 characters; choose a longer one")
        if self.secret and not re.fullmatch(r"[!-~]+", self.secret):
            raise UsageError("the token has a space or a character that is not ASCII; choose one without")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both a certificate and its key: give --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise UsageError(f"{path} does not exist; name the PEM file of the certificate and of its key")
        if self.outputs and "live" in self.sessions:
            raise UsageError("outputs are given for the session live, which is under `sessions` too; name them there")

    def all_sessions(self) -> dict[str, SessionConfig]:
        """The configured sessions, with the one called ``live`` that is always there."""
        live = SessionConfig(filter=self.filter, outputs=self.outputs)
        return ({} if "live" in self.sessions else {"live": live}) | self.sessions

    def encode_of(self, session: SessionConfig) -> EncodeConfig:
        """How a session's outputs are encoded."""
        return session.encode if "encode" in session.model_fields_set else self.encode

    def settings_of(self, id: str, session: SessionConfig) -> SessionSettings:
        """What the pipeline of a session needs of it. Raises ``UsageError`` or ``FilterError``."""
        source = MediaUrl.parse(f"publish://{id}") if session.published else MediaUrl.parse(session.source)
        outputs = tuple(output_url(text) for text in session.outputs)
        return session.model_copy(update={"encode": self.encode_of(session)}).settings(source, outputs)


class RelayConfig(ServeConfig, SessionConfig):
    """A server whose session ``live`` is described at the top of the file, with a key that stays."""

    rtmp_port: int | None = Field(1935, ge=0, le=65_535, description="for publishing by RTMP; 0: off")

    def check(self) -> None:
        if "live" in self.sessions:
            raise UsageError("the session live is what the top of the file describes; rename that under `sessions`")
        super().check()
        key = self.rtmp_key.get_secret_value() if self.rtmp_key else ""
        if self.published and self.rtmp_port and not key:
            raise UsageError(
                "a relay needs a stream key that its publishers keep: set STREAMFX_RTMP_KEY to one (for example with: "
                "export STREAMFX_RTMP_KEY=$(openssl rand -hex 16)), or `rtmp_key:` in the configuration"
            )
        if key and (len(key) < 8 or not re.fullmatch(r"[A-Za-z0-9._~-]+", key)):
            raise UsageError("the key for publishing has less than 8 characters, or others than A-Z a-z 0-9 . _ ~ -")

    def all_sessions(self) -> dict[str, SessionConfig]:
        given = {name: getattr(self, name) for name in SessionConfig.model_fields if name in self.model_fields_set}
        return {"live": SessionConfig(**given)} | self.sessions


_Served = TypeVar("_Served", bound=ServeConfig)


def load_serve_config(path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> ServeConfig:
    """Reads the configuration; the token may come from ``STREAMFX_TOKEN``. Raises ``ConfigError``, ``UsageError``."""
    return _load(ServeConfig, path, flags, environment, {"token": "STREAMFX_TOKEN"})


def load_relay_config(path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> RelayConfig:
    """As ``load_serve_config``, for a relay; the key for publishing may come from ``STREAMFX_RTMP_KEY``."""
    secrets = {"token": "STREAMFX_TOKEN", "rtmp_key": "STREAMFX_RTMP_KEY"}
    return _load(RelayConfig, path, flags, environment, secrets)


def _load(
    model: type[_Served],
    path: Path | None,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
) -> _Served:
    """``secrets``: keys of the configuration, and the variables they may come from."""
    given = dict(flags)
    for name, variable in secrets.items():
        if environment.get(variable):
            given.setdefault(name, environment[variable].strip())
    config, _ = read_config(model, path, given, environment)
    config.check()
    return config


def source_from_outside(text: str) -> str:
    """Checks a source that was asked for over HTTP: streams only, no files of this machine, no listening. Raises
    ``UsageError``."""
    if text == PUBLISH:
        return text
    url = MediaUrl.parse(text)
    if url.scheme not in (*_STREAMS, "testpattern"):
        raise UsageError(
            "over HTTP a source may be `publish`, rtmp(s)://HOST/APP/KEY, rtsp(s)://HOST/PATH, srt://HOST:PORT or "
            "testpattern://"
        )
    if _listens(url):
        raise UsageError("over HTTP a source cannot listen; use `publish`, which takes RTMP as well")
    if "hwaccel" in url.options:
        raise UsageError("over HTTP a source cannot choose hwaccel; leave it out")
    return text


def output_from_outside(text: str) -> MediaUrl:
    """Checks an output that was asked for over HTTP: streams only, and no keys that are kept here. Raises
    ``UsageError``."""
    url = output_url(text, stored=False)
    if url.scheme not in _STREAMS:
        raise UsageError(
            "over HTTP an output may be rtmp(s)://HOST/APP/KEY, rtsp(s)://HOST/PATH, srt://HOST:PORT, or a platform "
            "and its key: twitch:KEY"
        )
    if _listens(url):
        raise UsageError("over HTTP an output cannot listen; name one that it is to call")
    if url.scheme == "srt":
        srt.check_output(url)
    return url


def _listens(url: MediaUrl) -> bool:
    """Whether others would call us."""
    return "listen" in url.options or (url.scheme == "srt" and srt.listens_for_callers(url))


def filter_from_outside(name: str, params: dict[str, Any], configured: ServeConfig) -> FilterConfig:
    """A filter that was asked for over HTTP: an installed one, no other code, with those parameters that may be set so.
    What is read at its set-up, files and networks among it, is as in the server's own configuration, or by default.

    Imports the filter, which may take a moment. Raises ``UsageError`` or ``FilterError``.
    """
    kind = load_from_outside(name)
    fixed = setup_fields(kind)
    refused = sorted(fixed & params.keys())
    if refused:
        raise UsageError(f"filter {name!r}: {refused[0]} is for whoever runs the server to set; leave it out")
    filters = [configured.filter, *(session.filter for session in configured.all_sessions().values())]
    known = {one.name: one for one in reversed(filters) if one is not None}
    own = known.get(name, FilterConfig(name=name))
    kept = {key: value for key, value in own.params.items() if key in fixed}
    if name not in known and issubclass(kind, Chain):
        # Each filter of a chain is as it is configured by itself.
        for before, part in kind.parts():
            alone = known.get(part.name, FilterConfig(name=part.name)).params
            kept |= {before + key: value for key, value in alone.items() if before + key in fixed}
    return FilterConfig(name=name, params=kept | params, threads=own.threads)


def load_from_outside(name: str) -> AnyFilter:
    """An installed filter, or several with ``+`` between; no other code. Raises as ``filter_from_outside``."""
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,128}", name):
        raise UsageError("a filter is named by its name alone; GET /filters lists them")
    return load(target_of(name))
