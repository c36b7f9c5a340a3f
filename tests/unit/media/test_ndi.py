"""NDI: names, what is said where something is missing, and that nobody asks for it over HTTP."""

from __future__ import annotations

from fractions import Fraction

import pytest

from streamfx.core.errors import UsageError
from streamfx.media import ndi
from streamfx.media.base import LIVE_SINKS, EncodeSettings, OutputFormat, check_scheme
from streamfx.media.ndi import check_output, name_of, ndi_output
from streamfx.media.url import MediaUrl
from streamfx.server.settings import output_from_outside

FORMAT = OutputFormat((64, 48), Fraction(25), audio=True, live=True, encode=EncodeSettings())


def test_names_keep_their_capitals_and_spaces() -> None:
    assert name_of(MediaUrl.parse("ndi://DESK%20(OBS%202)?wait=3")) == "DESK (OBS 2)"
    for text in ("ndi://", "ndi://%20/"):
        with pytest.raises(UsageError, match="write ndi://NAME"):
            name_of(MediaUrl.parse(text))


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndi, "missing_library", lambda: True)
    url = MediaUrl.parse("ndi://one")
    with pytest.raises(UsageError, match=r"pip install 'streamfx\[ndi\]'"):
        ndi_output(url, FORMAT)


def test_options_and_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown option"):
        check_output(MediaUrl.parse("ndi://one?wait=3"))
    with pytest.raises(UsageError, match="ndi:// is no known input"):
        check_scheme(MediaUrl.parse("ndi://one"), output=False)


def test_over_http_it_cannot_be_asked_for() -> None:
    assert "ndi" in LIVE_SINKS
    with pytest.raises(UsageError, match="over HTTP"):
        output_from_outside("ndi://one")
