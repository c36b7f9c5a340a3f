"""The process of a shared encoder whose hardware fails, as that of ``failing_output``."""

from __future__ import annotations

import os
import sys
import time

from streamfx.media.encoder_process import main
from tests.unit.media.failing_output import fail

if __name__ == "__main__":
    if "FAILING_WAY" not in os.environ:
        time.sleep(60)
    fail(os.environ["FAILING_WAY"])
    sys.exit(main())
