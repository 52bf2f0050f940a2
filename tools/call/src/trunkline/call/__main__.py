"""``python -m trunkline.call``, the same as ``trunkline call``."""

import sys

from trunkline.call.command import main

if __name__ == "__main__":
    sys.exit(main())
