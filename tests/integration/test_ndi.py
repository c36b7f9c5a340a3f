"""NDI with the real library: the command offers a source, another process takes it, over 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.streamfx_process import streamfx_run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("cyndilib") is None, reason="needs cyndilib: pip install 'streamfx[ndi]'"),
]


async def test_pictures_arrive_in_order(tmp_path: Path) -> None:
    # Whom to ask, as nobody answers to mDNS here.
    settings = {"ndi": {"networks": {"ips": "127.0.0.1"}}}
    (tmp_path / "ndi-config.v1.json").write_text(json.dumps(settings))
    environment = {"NDI_CONFIG_DIR": str(tmp_path)}
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.ndi_receiver", "(Stage one)", "2",
        stdout=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip
    try:
        pattern = "testpattern://?size=320x180&fps=25&duration=4"
        async with streamfx_run(tmp_path, pattern, "ndi://Stage%20one", environment=environment) as running:
            said, _ = await asyncio.wait_for(receiver.communicate(), 12)
            assert await asyncio.wait_for(running.process.wait(), 10) == 0
    finally:
        if receiver.returncode is None:
            receiver.kill()
            await receiver.wait()
    seen = json.loads(said)
    assert seen["size"] == [320, 180]
    assert seen["rate"] == 25
    numbers = [number for number in seen["numbers"] if number is not None]
    assert len(set(numbers)) > 15, seen
    assert numbers == sorted(numbers)
