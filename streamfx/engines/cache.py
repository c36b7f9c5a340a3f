"""Engines that were made, on disk: found again by what they were made of, whole or not at all, within a size.

An entry is a folder by its key, a hash of all that its files depend on. It is made under another name and renamed, so
no reader ever sees half of one; checksums tell what was damaged since, which is then made anew. What was not used for
longest goes first when there is too much.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from streamfx.core.errors import UsageError
from streamfx.engines.base import Part
from streamfx.engines.recipe import Recipe

_META = "meta.json"
_BEGUN = ".begun-"
_DEFAULT_LIMIT = 4.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine. ``key``: its folder's name. ``made``, ``used``: seconds since 1970."""

    key: str
    part: str
    recipe: str
    size: int
    made: float
    used: float


class EngineCache:
    """In ``folder``, at most ``limit`` bytes. Several processes may use one at a time."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or default_folder()
        self._limit = default_limit() if limit is None else limit

    def find(self, key: str) -> Path | None:
        """The folder of an entry that is there and whole; one that is damaged is removed."""
        found = self.folder / key
        try:
            meta = json.loads((found / _META).read_text())
            whole = all(_digest(found / name) == digest for name, digest in meta["files"].items())
        except FileNotFoundError:
            whole = not found.exists()
            if whole:
                return None
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            whole = False
        if not whole:
            shutil.rmtree(found, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(found / _META)
        return found

    @contextlib.contextmanager
    def making(self, key: str, part: str, recipe: str) -> Iterator[Path]:
        """A folder to write an entry's files to; it is the entry once the block has ended without an error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tidy()
        begun = Path(tempfile.mkdtemp(prefix=f"{_BEGUN}{os.getpid()}-", dir=self.folder))
        try:
            yield begun
            files = {path.name: _digest(path) for path in sorted(begun.iterdir())}
            about = {"part": part, "recipe": recipe, "made": time.time(), "files": files}
            (begun / _META).write_text(json.dumps(about, indent=1))
            with contextlib.suppress(OSError):  # somebody else was quicker: theirs is as good
                begun.rename(self.folder / key)
        finally:
            shutil.rmtree(begun, ignore_errors=True)
        self._shrink(keep=key)

    def entries(self) -> list[Entry]:
        """All of them, the last used first."""
        found = []
        for meta in self.folder.glob(f"*/{_META}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                about = json.loads(meta.read_text())
                size = sum(path.stat().st_size for path in meta.parent.rglob("*") if path.is_file())
                used = meta.stat().st_mtime
                found.append(Entry(meta.parent.name, about["part"], about["recipe"], size, about["made"], used))
        return sorted(found, key=lambda entry: -entry.used)

    def remove(self, key: str) -> None:
        """Raises ``UsageError`` if there is no such entry. The beginning of a key is enough, if it is one entry's."""
        found = [entry.key for entry in self.entries() if key and entry.key.startswith(key)]
        if len(found) != 1:
            many = "several engines begin" if found else "there is no engine that begins"
            raise UsageError(f"{many} with {key!r}; streamfx engines ls shows them")
        shutil.rmtree(self.folder / found[0], ignore_errors=True)

    def clear(self) -> int:
        """Removes all; how many there were."""
        entries = self.entries()
        for entry in entries:
            shutil.rmtree(self.folder / entry.key, ignore_errors=True)
        return len(entries)

    def _shrink(self, keep: str) -> None:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        for entry in reversed(entries):
            if total <= self._limit:
                return
            if entry.key != keep:
                shutil.rmtree(self.folder / entry.key, ignore_errors=True)
                total -= entry.size

    def _tidy(self) -> None:
        """Removes what a process that was killed had begun."""
        for begun in self.folder.glob(f"{_BEGUN}*"):
            if not _alive(begun.name.removeprefix(_BEGUN).partition("-")[0]):
                shutil.rmtree(begun, ignore_errors=True)


def default_folder() -> Path:
    """``$STREAMFX_ENGINES``, or ``streamfx/engines`` in the user's cache."""
    if given := os.environ.get("STREAMFX_ENGINES"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamfx" / "engines"


def default_limit() -> int:
    """Bytes: ``$STREAMFX_ENGINES_GB``, or 4 GB. Raises ``UsageError`` if that is no number."""
    given = os.environ.get("STREAMFX_ENGINES_GB") or str(_DEFAULT_LIMIT)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise UsageError(f"STREAMFX_ENGINES_GB is {given!r}; set it to a number of gigabytes above 0")
    return int(limit * 1e9)


def key_of(part: Part, recipe: Recipe, **more: Any) -> str:
    """A hash of all that an engine depends on: the part's weights, code, inputs and their lengths; what is made for the
    recipe, and by which versions; the machine; ``more``, in JSON values."""
    about = {
        "part": part.name,
        "weights": weights_of(part),
        "code": _code_of(part),
        "inputs": {name: [list(x.shape), str(x.dtype)] for name, x in part.example.items()},
        "lengths": {name: {dim: asdict(length) for dim, length in free.items()} for name, free in part.dynamic.items()},
        "outputs": list(part.outputs),
        "artefact": recipe.artefact,
        "versions": recipe.versions,
        "machine": machine(),
        "more": more,
    }
    return hash_of(about)


def hash_of(about: Mapping[str, Any]) -> str:
    """Of JSON values."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def weights_of(part: Part) -> str:
    """A hash of parameters and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(part.module.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        plain = value.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        found.update(plain.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@cache
def machine() -> str:
    """What engines are made for: the processor, and the GPU if there is one."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
        model = f"{told.get('model name', model)} {hash_of({'flags': sorted(told.get('flags', '').split())})}"
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return " ".join(part for part in (model, allowed, gpu) if part)


def _code_of(part: Part) -> str:
    """A hash of the module's structure and of the code of its classes, as far as that is not torch's own."""
    found = hashlib.sha256(str(part.module).encode())
    files = {
        inspect.getsourcefile(type(module))
        for module in part.module.modules()
        if "torch.nn" not in type(module).__module__
    }
    for file in sorted(path for path in files if path):
        found.update(Path(file).read_bytes())
    return found.hexdigest()


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
