"""Known checkpoints, and fetching them from a hub: a real server on loopback that speaks as much of it as is asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streamfx.cli.app import app
from streamfx.core.errors import StreamFXError, UsageError
from streamfx.models import pull as pulling
from streamfx.models.pull import pull
from streamfx.models.registry import MODELS, KnownModel, find, folder_of, is_here, models_folder, resolve

REVISION = "a" * 40
WEIGHTS = bytes(range(256)) * 4000

FILES = {"config.json": b"{}", "part/weights.safetensors": WEIGHTS, "part/weights.bin": b"pickled", "README.md": b"#"}
MODEL = KnownModel("some", "some model", "image", "somebody/some", ("config.json", "*/*.safetensors"), 0.001, 1, "MIT")


@dataclass
class Hub:
    """``breaks``: after so many bytes of a file the connection is closed, and then nobody is served. ``status``: for
    every call, if set. ``damaged``: what it says of its files does not hold."""

    url: str = ""
    breaks: int | None = None
    status: int | None = None
    damaged: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


def _sibling(name: str, content: bytes, damaged: bool) -> dict[str, Any]:
    digest = hashlib.sha256(b"other" if damaged else content).hexdigest()
    lfs = {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}} if len(content) > 100 else {}
    return {"rfilename": name, "size": len(content)} | lfs


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            state.asked.append((self.command, self.path, self.headers.get("Range", "")))
            state.tokens.add(self.headers.get("Authorization", ""))
            if state.status is not None:
                code = {401: "GatedRepo", 404: "RepoNotFound"}.get(state.status, "")
                self._send(state.status, b"no", {"X-Error-Code": code}, body)
            elif self.path.startswith("/api/models/"):
                siblings = [_sibling(name, content, state.damaged) for name, content in FILES.items()]
                about = {"id": MODEL.place, "sha": REVISION, "siblings": siblings}
                self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, body)
            else:
                name = self.path.split(f"/resolve/{REVISION}/")[1]
                self._file(FILES[name], name, body)

        def _file(self, content: bytes, name: str, body: bool) -> None:
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Repo-Commit": REVISION,
                "Accept-Ranges": "bytes",
            }
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            part = content[first:]
            if body and state.breaks is not None and len(part) > state.breaks:
                self._send(206 if first else 200, part[: state.breaks], headers | {"Content-Length": str(len(part))})
                state.breaks, state.status = None, 503
                return
            self._send(206 if first else 200, part, headers, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_in(folder: Path) -> set[str]:
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return {name for name in found if not name.startswith(".")}


def test_only_what_is_wanted_is_fetched(hub: Hub) -> None:
    told: list[tuple[int, int]] = []
    folder = pull(MODEL, lambda file, done, total: told.append((done, total)), endpoint=hub.url)
    assert folder == folder_of(MODEL)
    assert files_in(folder) == {"config.json", "part/weights.safetensors"}
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS
    assert is_here(MODEL)
    assert told[-1] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)
    assert list(models_folder().iterdir()) == [folder]
    calls = len(hub.asked)
    assert pull(MODEL, lambda *_: None, endpoint=hub.url) == folder
    assert len(hub.asked) == calls, "what is here is not asked for again"


def test_what_breaks_off_leaves_nothing_that_looks_whole_and_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65_536)  # it writes nothing smaller
    hub.breaks = 300_000
    with pytest.raises(StreamFXError, match=r"could not be fetched .*pull it again to go on"):
        pull(MODEL, lambda *_: None, endpoint=hub.url)
    assert not is_here(MODEL)
    assert not folder_of(MODEL).exists()
    hub.status = None
    hub.asked.clear()
    told: list[int] = []
    folder = pull(MODEL, lambda file, done, total: told.append(done), endpoint=hub.url)
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS
    ranges = [given for method, path, given in hub.asked if method == "GET" and path.endswith("weights.safetensors")]
    assert [int(given.removeprefix("bytes=").split("-")[0]) > 0 for given in ranges] == [True]
    assert told == sorted(told)


def test_what_came_damaged_is_fetched_anew(hub: Hub) -> None:
    hub.damaged = True
    with pytest.raises(StreamFXError, match="came damaged; pull it again"):
        pull(MODEL, lambda *_: None, endpoint=hub.url)
    assert not is_here(MODEL)
    hub.damaged = False
    assert (pull(MODEL, lambda *_: None, endpoint=hub.url) / "part/weights.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "agree to its terms at https://huggingface.co/somebody/some and set HF_TOKEN"),
        (404, "is not to be found at https://huggingface.co/somebody/some"),
    ],
)
def test_refusals_are_sentences(hub: Hub, status: int, sentence: str) -> None:
    hub.status = status
    with pytest.raises(StreamFXError, match=sentence) as caught:
        pull(MODEL, lambda *_: None, endpoint=hub.url, token="hf_secret")
    assert "hf_secret" not in str(caught.value)
    assert hub.tokens == {"Bearer hf_secret"}
    assert not is_here(MODEL)


def test_nobody_there() -> None:
    with pytest.raises(StreamFXError, match="check the network"):
        pull(MODEL, lambda *_: None, endpoint="http://127.0.0.1:9")


def test_a_disk_that_is_full(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "_SPARE", 1 << 60)
    with pytest.raises(StreamFXError, match="not enough room"):
        pull(MODEL, lambda *_: None, endpoint=hub.url)


def test_a_hub_without_the_files(hub: Hub) -> None:
    other = KnownModel("other", "", "image", "somebody/some", ("unet/*",), 1, 1, "MIT")
    with pytest.raises(StreamFXError, match="none of the files that are expected"):
        pull(other, lambda *_: None, endpoint=hub.url)


def test_every_row_is_well_formed() -> None:
    names = [model.name for model in MODELS]
    assert len(set(names)) == len(names)
    for model in MODELS:
        assert model.place.count("/") == 1
        assert 0 < model.gigabytes < 100
        assert 0 <= model.vram < 200
        assert model.summary
        assert model.licence
        assert model.files
        assert set(model.needs) <= set(names) - {model.name}
        assert not model.entry or model.files[0].startswith(model.entry)
    documented = Path("docs/models.md").read_text()
    assert all(f"| `{name}` |" in documented for name in names)


def test_names_become_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    assert resolve("sd-turbo") == "stabilityai/sd-turbo"
    assert resolve("some/folder") == "some/folder"
    with pytest.raises(UsageError, match="streamfx models pull self-forcing"):
        resolve("self-forcing")
    with pytest.raises(UsageError, match="did you mean 'sd-turbo'"):
        find("sd-turob")
    for name in ("sd-turbo", "self-forcing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".complete").touch()
    assert resolve("sd-turbo") == str(tmp_path / "sd-turbo")
    assert resolve("self-forcing") == str(tmp_path / "self-forcing" / "checkpoints" / "self_forcing_dmd.pt")


def test_the_list_and_a_line_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    (tmp_path / "taesd").mkdir()
    (tmp_path / "taesd" / ".complete").touch()
    listed = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"})
    assert listed.exit_code == 0
    for model in MODELS:
        assert model.name in listed.output
    assert "taesd ✓" in listed.output
    shown = CliRunner().invoke(app, ["models", "show", "krea-realtime"], env={"COLUMNS": "120"})
    assert "https://huggingface.co/krea/krea-realtime-video" in shown.output
    assert "28.6 GB" in shown.output
