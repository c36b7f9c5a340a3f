"""``python -m streamfx``."""

import sys

from streamfx.cli import main

if __name__ == "__main__":
    sys.exit(main())
