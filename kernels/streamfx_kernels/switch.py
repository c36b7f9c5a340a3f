"""Which runs: the Triton kernel or the torch reference. One switch for all of them.

``STREAMFX_KERNELS`` in the environment, or ``forced`` in code: ``auto`` (the kernel for tensors on CUDA where triton is
installed), ``triton``, ``reference``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, cast, get_args

from torch import Tensor

Mode = Literal["auto", "triton", "reference"]

_forced: list[Mode] = []


def mode() -> Mode:
    """What is asked for. Raises ``ValueError`` if the environment asks for something else."""
    if _forced:
        return _forced[-1]
    given = os.environ.get("STREAMFX_KERNELS") or "auto"
    if given not in get_args(Mode):
        raise ValueError(f"STREAMFX_KERNELS is {given!r}; set it to auto, triton or reference")
    return cast(Mode, given)


@contextmanager
def forced(wanted: Mode) -> Iterator[None]:
    """That one, whatever the environment says. For all threads."""
    _forced.append(wanted)
    try:
        yield
    finally:
        _forced.pop()


def by_kernel(tensor: Tensor) -> bool:
    """Whether a kernel is to work on what lies where ``tensor`` lies."""
    wanted = mode()
    return wanted == "triton" or (wanted == "auto" and tensor.is_cuda and installed())


@cache
def installed() -> bool:
    """Whether there is a triton to import."""
    return importlib.util.find_spec("triton") is not None
