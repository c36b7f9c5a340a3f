"""Memory shared by the stream and one child process: pixels cross without being copied through a pipe."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamfx.core.errors import StreamFXError

_RAM_DISK = Path("/dev/shm")


class Arena:
    """A memory-mapped file of fixed size in RAM where the system has such a place, else in the temp folder.

    The creator calls ``unlink`` once the child has attached: from then on the memory has no name and goes
    when both are gone, however they end. (``multiprocessing.shared_memory`` keeps its name until somebody
    tidies up, and its tracker process removes it while others still use it.)
    """

    def __init__(self, path: Path, memory: mmap.mmap) -> None:
        self.path = path
        self.size = len(memory)
        self._memory = memory

    @classmethod
    def create(cls, size: int) -> Arena:
        """Reserves ``size`` bytes. Raises ``StreamFXError`` if neither place has the room."""
        folders = [_RAM_DISK] if _RAM_DISK.is_dir() else []
        for folder in (*folders, Path(tempfile.gettempdir())):
            descriptor, name = tempfile.mkstemp(prefix="streamfx-", suffix=".arena", dir=folder)
            try:
                # A sparse file in a full RAM disk (64 MB in many containers) kills the process at the
                # first write to it; asking for the blocks now gives an error instead.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, size)
                else:
                    os.truncate(descriptor, size)
                return cls(Path(name), mmap.mmap(descriptor, size))
            except OSError as error:
                Path(name).unlink()
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            finally:
                os.close(descriptor)
        raise StreamFXError(
            f"no room for {size / 1e6:.0f} MB of shared memory; free some space in /dev/shm or the temp folder, "
            "or process smaller frames with --size"
        )

    @classmethod
    def attach(cls, path: str) -> Arena:
        """Opens the arena that another process created."""
        with Path(path).open("r+b") as file:
            return cls(Path(path), mmap.mmap(file.fileno(), 0))

    def unlink(self) -> None:
        """Takes the name away; the memory stays until both sides have closed it."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def array(self, offset: int, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """The bytes from ``offset`` on as a writable array; drop it before ``close``."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Unmaps. A view that somebody still holds keeps the memory until it is dropped."""
        self.unlink()
        with contextlib.suppress(BufferError):
            self._memory.close()
