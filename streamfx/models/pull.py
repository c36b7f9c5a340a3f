"""Fetches known models from the hub."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.models.registry import KnownModel, folder_of, is_here, mark_complete, models_folder

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told (file, bytes that are here, bytes in all)."""

_SPARE = 1_000_000_000


def pull(model: KnownModel, on_progress: Progress, endpoint: str | None = None, token: str | None = None) -> Path:
    """Fetches a model and returns its folder; at once if it is here.

    What was broken off goes on where it was; the folder gets its name only when all is there. ``endpoint``: another
    hub. ``token``: for models that want one; by default that of ``HF_TOKEN``. Raises ``UsageError`` or
    ``StreamFXError`` with what to do.
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
    with _Explained(model):
        partial.mkdir(parents=True, exist_ok=True)
        info = HfApi(endpoint=endpoint, token=token or False).model_info(model.place, files_metadata=True)
        files = [file for file in info.siblings or [] if _wanted(model, file.rfilename)]
        if not files:
            raise StreamFXError(f"{model.page} has none of the files that are expected; it may have been changed")
        missing = [file for file in files if not (partial / file.rfilename).is_file()]
        _check_room(partial, sum(file.size or 0 for file in missing))
        total = sum(file.size or 0 for file in files)
        done = total - sum(file.size or 0 for file in missing)
        for file in missing:
            report = functools.partial(_report, on_progress, file.rfilename, done, total)
            _fetch(model, info.sha or "main", file, partial / file.rfilename, report, endpoint, token)
            done += file.size or 0
        on_progress("", total, total)
        mark_complete(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return folder


def _report(on_progress: Progress, file: str, before: int, total: int, here: int) -> None:
    on_progress(file, before + here, total)


def _fetch(
    model: KnownModel,
    revision: str,
    file: Any,
    place: Path,
    report: Callable[[int], None],
    endpoint: str | None,
    token: str | None,
) -> None:
    """Fetches one file, from where it was broken off, and checks it. (The library's own way begins each file anew.)"""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{revision[:12]}.part")
    with part.open("ab") as out:
        if out.tell() < (file.size or 1):
            http_get(
                hf_hub_url(model.place, file.rfilename, revision=revision, endpoint=endpoint),
                out,
                resume_size=out.tell(),
                headers={"authorization": f"Bearer {token}"} if token else {},
                expected_size=file.size,
                tqdm_class=_reporting(report),
            )
    expected = file.lfs.sha256 if file.lfs else None
    if expected is not None and _digest(part) != expected:
        part.unlink()
        raise StreamFXError(f"{file.rfilename} of {model.name} came damaged; pull it again")
    part.rename(place)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _wanted(model: KnownModel, file: str) -> bool:
    return any(fnmatch(file, pattern) for pattern in model.files)


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

    def __init__(self, model: KnownModel) -> None:
        self._model = model

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
        if "GatedRepoError" in kinds or status in {401, 403}:
            return f"{name} is not given to everybody; agree to its terms at {page} and set HF_TOKEN to your token"
        if "RepositoryNotFoundError" in kinds or status == 404:
            return f"{name} is not to be found at {page}; it may have moved"
        if isinstance(error, OSError) and error.errno is not None and "HTTPError" not in kinds:
            return (
                f"{name} cannot be written to {models_folder()}: {error.strerror}; choose a folder by STREAMFX_MODELS"
            )
        return f"{name} could not be fetched ({type(error).__name__}); check the network, and pull it again to go on"
