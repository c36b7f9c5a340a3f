"""streamfx as a library: run a stream and change the filter's parameters while it runs.

    python examples/live_parameters.py out.mp4

Ten seconds of the test pattern become a mosaic whose cells grow; no frame is lost over a change.
"""

import asyncio
import sys

from streamfx.config import load_config
from streamfx.core.errors import StreamFXError
from streamfx.pipeline import Session


async def main(output: str) -> None:
    flags = {
        "input": "testpattern://?size=640x360&fps=30&duration=10",
        "outputs": [output],
        "filter": {"name": "pixelate", "params": {"cell": 4}},
    }
    session = Session(load_config(None, flags).session_settings(), on_event=lambda kind, text: print(f"{kind}: {text}"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run())
        for cell in (8, 16, 32, 64):
            await asyncio.wait([running], timeout=2)
            if running.done():
                break
            session.set_params({"cell": cell})  # validated as a whole, and taken up with the next frame
    counters = session.stats()["counters"]
    print(f"{counters['frames_in']} frames in, {counters['frames_out']} out, {counters.get('reused', 0)} reused")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:2] or ["live_parameters.mp4"]))
    except* StreamFXError as group:
        sys.exit(str(group.exceptions[0]))
