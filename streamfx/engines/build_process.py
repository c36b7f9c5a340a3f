"""What builds engines beside a stream: ``python -m streamfx.engines.build_process``, started by ``engines.hotswap``.

Takes an order as a line of JSON, and gives a line of JSON back. It works only when nobody else wants the processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from streamfx.core.errors import StreamFXError


def main() -> int:
    line = sys.stdin.readline()
    if not line:
        return 0
    order = json.loads(line)
    threading.Thread(target=_go_with_the_stream, name="stream-line", daemon=True).start()
    # What exporters and compilers print is not the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _stand_back()
    json.dump(_built(order), answer)
    answer.write("\n")
    answer.flush()
    return 0


def _built(order: dict[str, Any]) -> dict[str, Any]:
    import torch

    from streamfx.engines.build import Order, build
    from streamfx.engines.cache import EngineCache

    cache, frames = order.pop("cache"), order.pop("frames")
    wanted = Order(**order)
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    try:
        fit = build(wanted, EngineCache(Path(cache)), [] if frames is None else list(np.load(frames)))
    except StreamFXError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    return {"told": list(fit.told)}


def _go_with_the_stream() -> None:
    """Whoever asked is gone when the line ends, however that came: nobody wants the engines any more."""
    while sys.stdin.read(1):
        pass
    os._exit(1)


def _stand_back() -> None:
    """The stream goes first, always."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(main())
