"""Every error a user can meet: one place, one sentence each, saying what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable

_URL_WITH_PATH = re.compile(r"\b(?P<scheme>rtmps?|srt|rtsps?)://(?P<rest>[^\s'\"]+)", re.IGNORECASE)


class StreamFXError(Exception):
    """An error with a sentence for the user. ``str(error)`` is shown as it is, so it holds no secret."""

    exit_code = 1


class UsageError(StreamFXError):
    """What was asked for cannot be done as asked: a bad URL, option, parameter or file (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or value is not valid."""


class SourceError(StreamFXError):
    """The input cannot be opened, or was lost for good."""


class SinkError(StreamFXError):
    """An output cannot be opened, or was lost for good."""


class FilterError(StreamFXError):
    """A filter is broken: it cannot be loaded, set up, or keeps failing."""


class FilterCrashedError(FilterError):
    """The filter's worker process died, hung, or ran out of memory; it can be restarted."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Returns ``text`` without stream keys: URL credentials, the last path part and the query of live
    URLs become ``****``, and so does every string in ``secrets``."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "****")

    def hide(match: re.Match[str]) -> str:
        address, mark, _ = match["rest"].partition("?")
        host, slash, path = address.partition("/")
        host = "****@" + host.rpartition("@")[2] if "@" in host else host
        app, cut, key = path.rstrip("/:;,.)]}>").rpartition("/")
        shown = f"{app}/****" if cut else key
        # Without a path to tell of, the query is all there is to see that something was hidden.
        return f"{match['scheme']}://{host}{slash}{shown}" + ("?****" if mark and not cut else "")

    return _URL_WITH_PATH.sub(hide, text)
