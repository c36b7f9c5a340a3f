"""Fixtures of the tests against real programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.programs import free_port, nginx_rtmp


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[int]:
    """The port of an nginx-rtmp that lives as long as the test."""
    port = free_port()
    async with nginx_rtmp(tmp_path, port):
        yield port
