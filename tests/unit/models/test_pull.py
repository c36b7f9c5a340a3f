"""Fetching checkpoints from a hub: a real server on loopback that speaks as much of it as is asked."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.models import pull as pulling
from streamfx.models.pull import pull
from streamfx.models.registry import KnownModel, folder_of, is_here, models_folder
from tests.support import environment, streamfx

WEIGHTS = bytes(range(256)) * 4000
FILES = {"config.json": b"{}", "part/weights.safetensors": WEIGHTS, "part/weights.bin": b"pickled", "README.md": b"#"}
MODEL = KnownModel("some", "some model", "image", "somebody/some", ("config.json", "*/*.safetensors"), 0.001, 1, "MIT")
TOKEN = "hf_secret"

Usage = namedtuple("Usage", "total used free")


@dataclass
class Hub:
    """``breaks``: after so many bytes of a file the connection is closed, and then nobody is served. ``status``, with
    ``code`` in a header: for every call, if set. ``damaged``: what it says of its files does not hold. ``storage``:
    where it sends those who ask for a file. ``deaf``: to the part of a file that is asked for, it gives the whole."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    revision: str = "a" * 40
    breaks: int | None = None
    status: int | None = None
    code: str = ""
    damaged: bool = False
    deaf: bool = False
    storage: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def ranges(self, file: str) -> list[int]:
        """From which bytes on a file was asked for."""
        asked = [given for method, path, given in self.asked if method == "GET" and path.endswith(file)]
        return [int((given or "bytes=0-").removeprefix("bytes=").split("-")[0]) for given in asked]

    def sibling(self, name: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(b"other" if self.damaged else content).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        lfs = {"lfs": {"sha256": digest, "size": len(content), "pointerSize": 130}} if len(content) > 100 else {}
        return {"rfilename": name, "size": len(content), "blobId": blob} | lfs


@contextmanager
def serving() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            if not self.path.startswith("/api/models/") and "/resolve/" not in self.path:
                self._send(404, b"", {}, body)  # the library asks for more than we do
                return
            state.asked.append((self.command, self.path, self.headers.get("Range", "")))
            state.tokens.add(self.headers.get("Authorization", ""))
            if state.status is not None:
                self._send(state.status, b"no", {"X-Error-Code": state.code}, body)
            elif self.path.startswith("/api/models/"):
                siblings = [state.sibling(name, content) for name, content in state.files.items()]
                about = {"id": MODEL.place, "sha": state.revision, "siblings": siblings}
                self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, body)
            elif state.storage:
                self._send(302, b"", {"Location": state.storage + self.path}, body)
            else:
                self._file(state.files[self.path.split("/resolve/")[1].partition("/")[2]], body)

        def _file(self, content: bytes, body: bool) -> None:
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            first = 0 if state.deaf else first
            headers = {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Repo-Commit": state.revision,
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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65_536)  # it writes nothing smaller
    with serving() as state:
        yield state


def quiet(*_: object) -> None: ...


def files_in(folder: Path) -> set[str]:
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return found - {".complete"}


def broken_off(hub: Hub) -> None:
    """A pull that ends in the middle of the weights; the hub works again afterwards."""
    hub.breaks = 300_000
    with pytest.raises(StreamFXError, match=r"could not be fetched .*pull it again to go on"):
        pull(MODEL, quiet, endpoint=hub.url)
    hub.status = None
    hub.asked.clear()


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
    assert pull(MODEL, quiet, endpoint=hub.url) == folder
    assert len(hub.asked) == calls, "what is here is not asked for again"


def test_what_breaks_off_leaves_nothing_that_looks_whole_and_goes_on(hub: Hub) -> None:
    broken_off(hub)
    assert not is_here(MODEL)
    assert not folder_of(MODEL).exists()
    told: list[int] = []
    folder = pull(MODEL, lambda file, done, total: told.append(done), endpoint=hub.url)
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS
    (start,) = hub.ranges("weights.safetensors")
    assert 0 < start <= 300_000
    assert hub.ranges("config.json") == [], "what was whole is not fetched again"
    assert told == sorted(told)
    assert files_in(folder) == {"config.json", "part/weights.safetensors"}


def test_a_hub_that_gives_the_whole_file_again(hub: Hub) -> None:
    broken_off(hub)
    hub.deaf = True
    folder = pull(MODEL, quiet, endpoint=hub.url)
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS


def test_files_of_two_revisions_are_not_mixed(hub: Hub) -> None:
    broken_off(hub)
    hub.files["config.json"] = b'{"new": 1}'
    hub.revision = "b" * 40
    folder = pull(MODEL, quiet, endpoint=hub.url)
    assert (folder / "config.json").read_bytes() == b'{"new": 1}'
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS
    assert hub.ranges("weights.safetensors")[0] > 0, "the same file goes on, whatever else has changed"


def test_weights_that_have_changed_begin_anew(hub: Hub) -> None:
    broken_off(hub)
    hub.files["part/weights.safetensors"] = WEIGHTS[::-1]
    hub.revision = "b" * 40
    folder = pull(MODEL, quiet, endpoint=hub.url)
    assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS[::-1]
    assert files_in(folder) == {"config.json", "part/weights.safetensors"}, "nothing is left of the old ones"


def test_what_is_no_longer_on_the_hub_is_not_kept(hub: Hub) -> None:
    hub.files = {"gone/old.safetensors": b"old", **hub.files}
    broken_off(hub)
    del hub.files["gone/old.safetensors"]
    assert files_in(pull(MODEL, quiet, endpoint=hub.url)) == {"config.json", "part/weights.safetensors"}


def test_what_came_damaged_is_fetched_anew(hub: Hub) -> None:
    hub.damaged = True
    with pytest.raises(StreamFXError, match="came damaged; pull it again"):
        pull(MODEL, quiet, endpoint=hub.url)
    assert not is_here(MODEL)
    hub.damaged = False
    assert (pull(MODEL, quiet, endpoint=hub.url) / "part/weights.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["../../out.safetensors", "part/../../../out.safetensors", "/out/out.safetensors"])
def test_names_that_lead_out_of_the_folder_are_not_fetched(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files[name] = b"evil"
    folder = pull(MODEL, quiet, endpoint=hub.url)
    assert files_in(folder) == {"config.json", "part/weights.safetensors"}
    assert not list(tmp_path.rglob("out.safetensors"))


def test_a_folder_of_that_name_that_was_not_pulled_is_left_alone(hub: Hub) -> None:
    theirs = folder_of(MODEL) / "their.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    with pytest.raises(UsageError, match="was not pulled; move it away"):
        pull(MODEL, quiet, endpoint=hub.url)
    assert theirs.read_bytes() == b"precious"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("status", "code", "token", "sentence"),
    [
        (401, "GatedRepo", TOKEN, "agree to its terms at https://huggingface.co/somebody/some and set HF_TOKEN"),
        (403, "GatedRepo", TOKEN, "agree to its terms at https://huggingface.co/somebody/some and set HF_TOKEN"),
        (401, "", TOKEN, "does not take the token in HF_TOKEN; correct or unset it"),
        (401, "RepoNotFound", None, "is not to be found at https://huggingface.co/somebody/some, or not without HF_TO"),
        (404, "RepoNotFound", TOKEN, "is not to be found at https://huggingface.co/somebody/some; it may have moved"),
        (429, "", None, "wants a pause; pull some again in some minutes"),
        (500, "", TOKEN, "check the network, and pull it again to go on"),
    ],
)
def test_refusals_are_sentences(
    hub: Hub,
    status: int,
    code: str,
    token: str | None,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.status, hub.code = status, code
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StreamFXError, match=sentence) as caught:
        pull(MODEL, quiet, endpoint=hub.url)
    assert hub.tokens == {f"Bearer {token}" if token else ""}
    assert TOKEN not in str(caught.value) + caplog.text
    assert "\n" not in str(caught.value)
    assert not is_here(MODEL)


def test_the_token_stays_with_the_hub(hub: Hub) -> None:
    """Files lie in a storage elsewhere, which has no business with it."""
    with serving() as storage:
        hub.storage = storage.url
        folder = pull(MODEL, quiet, endpoint=hub.url, token=TOKEN)
        assert (folder / "part/weights.safetensors").read_bytes() == WEIGHTS
        assert hub.tokens == {f"Bearer {TOKEN}"}
        assert storage.tokens == {""}


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    with pytest.raises(StreamFXError, match="check the network"):
        pull(MODEL, quiet, endpoint="http://127.0.0.1:9")


def test_a_disk_that_is_full(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "_SPARE", 1 << 60)
    with pytest.raises(StreamFXError, match="not enough room"):
        pull(MODEL, quiet, endpoint=hub.url)
    assert hub.ranges("config.json") == [], "it is seen before anything is fetched"


def test_what_is_here_already_needs_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_off(hub)
    monkeypatch.setattr(pulling, "_SPARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, len(WEIGHTS) - 200_000))
    assert (pull(MODEL, quiet, endpoint=hub.url) / "part/weights.safetensors").read_bytes() == WEIGHTS


def test_a_place_that_cannot_be_written(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path / "file"))
    with pytest.raises(StreamFXError, match=r"cannot be written to .*choose a folder by STREAMFX_MODELS"):
        pull(MODEL, quiet, endpoint=hub.url)


def test_a_hub_without_the_files(hub: Hub) -> None:
    other = KnownModel("other", "", "image", "somebody/some", ("unet/*",), 1, 1, "MIT")
    with pytest.raises(StreamFXError, match="none of the files that are expected"):
        pull(other, quiet, endpoint=hub.url)


def test_a_file_that_is_loaded_and_has_gone(hub: Hub) -> None:
    """The rest of the files are no use without it."""
    files = ("config.json", "model.pt")
    other = KnownModel("other", "", "video", "somebody/some", files, 1, 1, "MIT", entry="model.pt")
    with pytest.raises(StreamFXError, match=r"has no model\.pt; it may have been changed"):
        pull(other, quiet, endpoint=hub.url)
    assert hub.ranges("config.json") == []


def test_without_the_library(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'streamfx\[models\]'"):
        pull(MODEL, quiet, endpoint=hub.url)


def test_the_command(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": WEIGHTS}
    env = environment(HF_ENDPOINT=hub.url, STREAMFX_MODELS=str(tmp_path / "models"), HF_TOKEN=TOKEN)
    answer = streamfx("models", "pull", "taesd", env=env)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "taesd: https://huggingface.co/madebyollin/taesd; licence: MIT"
    assert lines[-1] == f"taesd is in {tmp_path / 'models' / 'taesd'}"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in answer.out
    assert "taesd ✓" in streamfx("models", env=env).out


def test_the_command_that_is_broken_off(hub: Hub, tmp_path: Path) -> None:
    """One sentence is said, and nothing of what the library has to say."""
    hub.files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": WEIGHTS}
    hub.breaks = 300_000
    env = environment(HF_ENDPOINT=hub.url, STREAMFX_MODELS=str(tmp_path / "models"))
    answer = streamfx("models", "pull", "taesd", env=env)
    assert answer.code == 1
    assert answer.err.startswith("streamfx: taesd could not be fetched")
    assert len(answer.err.splitlines()) == 1


def test_the_command_offline(tmp_path: Path) -> None:
    env = environment(HF_HUB_OFFLINE="1", STREAMFX_MODELS=str(tmp_path))
    answer = streamfx("models", "pull", "taesd", env=env)
    assert answer.code == 1
    assert "HF_HUB_OFFLINE" in answer.err
    assert len(answer.err.splitlines()) == 1
