"""Fetches known models from the hub."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.models.registry import KnownModel, folder_of, is_here, mark_complete, models_folder

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told (file, bytes that are here, bytes in all)."""

_SPARE = 1_000_000_000

_RECORD = ".fetched"
"""Beside what is fetched already: a line for each file that is whole, with what its content is known by."""


def pull(model: KnownModel, on_progress: Progress, endpoint: str | None = None, token: str | None = None) -> Path:
    """Fetches a model and returns its folder; at once if it is here.

    What was broken off goes on where it was; the folder gets its name only when all is there. ``endpoint``: another
    hub; by default that of ``HF_ENDPOINT``. ``token``: for models that want one; by default that of ``HF_TOKEN``.
    Raises ``UsageError`` or ``StreamFXError`` with what to do.
    """
    folder = folder_of(model)
    if is_here(model):
        return folder
    partial = models_folder() / f".{model.name}.partial"
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UsageError(f"pulling needs {error.name}; install it with: pip install 'streamfx[models]'") from error
    token = token or os.environ.get("HF_TOKEN") or None
    with _Explained(model, token is not None):
        if folder.is_dir() and any(folder.iterdir()):
            hint = "move it away, or choose a folder by STREAMFX_MODELS"
            raise UsageError(f"{folder} is there and was not pulled; {hint}")
        partial.mkdir(parents=True, exist_ok=True)
        info = HfApi(endpoint=endpoint, token=token or False).model_info(model.place, files_metadata=True)
        revision = info.sha or "main"
        files = [_File(file, revision) for file in info.siblings or [] if _wanted(model, file.rfilename)]
        _check_files(model, files)
        whole = _recorded(partial)
        missing = [file for file in files if file.line not in whole or not (partial / file.name).is_file()]
        total = sum(file.size for file in files)
        done = total - sum(file.size for file in missing)
        _check_room(partial, sum(file.size - _size(partial / file.part) for file in missing))
        for file in missing:
            report = functools.partial(_report, on_progress, file.name, done, total)
            _fetch(model, revision, file, partial, report, endpoint, token)
            done += file.size
        on_progress("", total, total)
        _sweep(partial, {file.name for file in files})
        mark_complete(partial)
        partial.rename(folder)
    return folder


class _File:
    """One file on the hub. ``line``: tells its content from any other, so that what is the same in a later revision is
    not fetched again, and what is not is never mixed. ``part``: where it lies until it is whole."""

    def __init__(self, file: Any, revision: str) -> None:
        self.name: str = file.rfilename
        self.size: int = file.size or 0
        self.sha256: str | None = file.lfs.sha256 if file.lfs else None
        content = self.sha256 or file.blob_id or revision
        self.line = f"{content} {self.name}"
        self.part = f"{self.name}.{content[:12]}.part"


def _report(on_progress: Progress, file: str, before: int, total: int, here: int) -> None:
    on_progress(file, before + here, total)


def _fetch(
    model: KnownModel,
    revision: str,
    file: _File,
    folder: Path,
    report: Callable[[int], None],
    endpoint: str | None,
    token: str | None,
) -> None:
    """Fetches one file, from where it was broken off, and checks it. (The library's own way begins each file anew.)"""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    part = folder / file.part
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as out:
        if out.tell() < (file.size or 1):
            http_get(
                hf_hub_url(model.place, file.name, revision=revision, endpoint=endpoint),
                out,
                resume_size=out.tell(),
                headers={"authorization": f"Bearer {token}"} if token else {},
                expected_size=file.size,
                tqdm_class=_reporting(report),
            )
    if file.sha256 is not None and _digest(part) != file.sha256:
        part.unlink()
        raise StreamFXError(f"{file.name} of {model.name} came damaged; pull it again")
    part.replace(folder / file.name)
    with (folder / _RECORD).open("a", encoding="utf-8") as record:
        record.write(f"{file.line}\n")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _wanted(model: KnownModel, file: str) -> bool:
    # Patterns match across folders, and so would names that lead out of ours.
    inside = not PurePosixPath(file).is_absolute() and not PureWindowsPath(file).anchor
    parts = PureWindowsPath(file).parts  # which knows both ways to write a path
    return inside and ".." not in parts and any(fnmatch(file, pattern) for pattern in model.files)


def _check_files(model: KnownModel, files: list[_File]) -> None:
    if not files:
        raise StreamFXError(f"{model.page} has none of the files that are expected; it may have been changed")
    if model.entry and not any(f"{file.name}/".startswith(f"{model.entry}/") for file in files):
        raise StreamFXError(f"{model.page} has no {model.entry}; it may have been changed")


def _recorded(folder: Path) -> set[str]:
    record = folder / _RECORD
    return set(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else set()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _sweep(folder: Path, wanted: set[str]) -> None:
    """Removes the record, and what is left of other revisions."""
    for place in sorted(folder.rglob("*"), reverse=True):
        if place.is_dir():
            with contextlib.suppress(OSError):  # it is not empty
                place.rmdir()
        elif place.relative_to(folder).as_posix() not in wanted:
            place.unlink()


def _check_room(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if missing + _SPARE > free:
        raise StreamFXError(
            f"there is not enough room in {folder.parent}: {missing / 1e9:.1f} GB are to be fetched and "
            f"{free / 1e9:.1f} GB are free; make room, or choose another folder with STREAMFX_MODELS"
        )


def _reporting(report: Callable[[int], None]) -> type[Any]:
    """The hub's library tells how far it is by a progress bar alone: one that shows nothing, and tells ``report`` how
    many bytes of the file are here."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.here = int(kwargs.get("initial") or 0)
            super().__init__(*args, **{key: kwargs[key] for key in ("total", "unit") if key in kwargs}, disable=True)

        def update(self, n: float | None = 1) -> None:
            self.here += int(n or 0)
            report(self.here)

    return Bar


class _Explained:
    """Turns what the hub's library raises into a sentence; whatever it says of tokens is left out."""

    def __init__(self, model: KnownModel, with_token: bool) -> None:
        self._model = model
        self._with_token = with_token

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, StreamFXError) or not isinstance(error, Exception):
            return
        logger.debug("pull=%s error=%s", self._model.name, type(error).__name__)
        raise StreamFXError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        name, page = self._model.name, self._model.page
        kinds = {kind.__name__ for kind in type(error).__mro__}
        status = getattr(getattr(error, "response", None), "status_code", None)
        if "OfflineModeIsEnabled" in kinds:
            return f"{name} cannot be fetched while HF_HUB_OFFLINE is set; unset it, and pull it again"
        if "GatedRepoError" in kinds or status == 403:
            return f"{name} is not given to everybody; agree to its terms at {page} and set HF_TOKEN to your token"
        if status == 401 and self._with_token:
            return f"the hub does not take the token in HF_TOKEN; correct or unset it, and pull {name} again"
        if status == 401:  # which is how the hub tells strangers that there is nothing, too
            return f"{name} is not to be found at {page}, or not without HF_TOKEN set to a token; look at that page"
        if status == 429:
            return f"the hub wants a pause; pull {name} again in some minutes to go on"
        if "RepositoryNotFoundError" in kinds or status == 404:
            return f"{name} is not to be found at {page}; it may have moved"
        if isinstance(error, OSError) and error.errno is not None and "HTTPError" not in kinds:
            return (
                f"{name} cannot be written to {models_folder()}: {error.strerror}; choose a folder by STREAMFX_MODELS"
            )
        return f"{name} could not be fetched ({type(error).__name__}); check the network, and pull it again to go on"
