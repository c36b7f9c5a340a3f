"""Kernels run in Triton's interpreter where there is no GPU (tests/conftest.py), on the GPU where there is one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
