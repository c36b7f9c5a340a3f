"""A place a stream comes from or goes to, as the user wrote it: a URL or a file path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from streamfx.core.errors import UsageError, redact

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_OPTIONS_OF_FILE = re.compile(r"\?(?=\w+(=[^&]*)?(&\w+(=[^&]*)?)*$)")
"""Where the options of a file begin: a question mark may also be a part of its name."""
_TRUE = {"1", "true", "yes", "on", ""}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class MediaUrl:
    """``raw`` is what the user wrote, secrets included: never show it, show ``str(url)``. ``platform``: whose server it
    is, if it was named so (``media.platforms``), and ``account``, which of its keys."""

    raw: str = field(repr=False)
    scheme: str
    host: str = ""
    port: int | None = None
    path: str = field(default="", repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False)
    platform: str = ""
    account: str = ""

    @classmethod
    def parse(cls, raw: str) -> MediaUrl:
        """Reads a URL; what has no scheme is a file path. Raises ``UsageError``."""
        match = _SCHEME.match(raw)
        if "\0" in raw:
            raise UsageError("a file name or URL holds a zero byte; write it without")
        if match is None or match[1].lower() == "file":
            path, query = _split_options(raw[len(match[0]) if match else 0 :])
            path = unquote(path) if match else path
            if not path:
                raise UsageError("an empty file name was given; write a path or a URL")
            return cls(raw, "file", path=path, options=dict(parse_qsl(query, keep_blank_values=True)))
        if re.search(r"[\s'\"]", raw):
            raise UsageError(f"the {match[1].lower()}:// URL holds a space, line break or quote; write it without")
        try:
            parts = urlsplit(raw)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{redact(raw)} is not a valid URL: {redact(str(error)).lower()}") from error
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(raw, match[1].lower(), parts.hostname or "", port, parts.path, options)

    def __str__(self) -> str:
        if self.platform:
            return f"{self.platform} ({self.account})" if self.account else self.platform
        return self.path if self.scheme == "file" else redact(self.raw)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown: the whole URL, its last path part and query where those are a stream key,
        passwords."""
        if self.scheme in {"rtsp", "rtsps", "srt"}:
            login, at, _ = self.raw.partition("://")[2].partition("?")[0].rpartition("@")
            password = login.partition(":")[2] if at else ""
            hidden = (password, unquote(password), *(self.options.get(name, "") for name in ("passphrase", "streamid")))
            return (self.raw, *(text for text in hidden if len(text) > 3))
        if self.scheme not in {"rtmp", "rtmps"}:
            return ()
        parts = (self.path.rpartition("/")[2], self.raw.partition("?")[2])
        long = (value for value in self.options.values() if len(value) > 7)
        return (self.raw, *(part for part in parts if len(part) > 3), *long)

    def flag(self, name: str, default: bool) -> bool:
        """A yes/no option: ``?name=1``. Raises ``UsageError``."""
        text = self.options.get(name)
        if text is None:
            return default
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise UsageError(f"{self}: option {name} is {text!r}; write {name}=1 or {name}=0")

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number option within bounds. Raises ``UsageError``."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise UsageError(f"{self}: option {name} is {text!r}; it must be a number from {low:g} to {high:g}")
        return value

    def allow(self, known: Iterable[str]) -> None:
        """Raises ``UsageError`` for an option that is not among ``known``."""
        names = list(known)
        for option in self.options:
            if option not in names:
                near = difflib.get_close_matches(option, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
                raise UsageError(f"{self}: unknown option {option!r}; {hint}")


def _split_options(path: str) -> tuple[str, str]:
    match = _OPTIONS_OF_FILE.search(path)
    return (path[: match.start()], path[match.end() :]) if match else (path, "")


def parse_size(text: str) -> tuple[int, int]:
    """``"1280x720"`` → (1280, 720). Raises ``UsageError`` unless both are even and from 16 to 8192."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(16 <= side <= 8192 and side % 2 == 0 for side in size):
        raise UsageError(
            f"size {text!r} is not possible; write WIDTHxHEIGHT, both even and from 16 to 8192, as 1280x720"
        )
    return size
