"""``python -m trunkline.call``, the same as ``trunkline call``."""

import sys

from trunkline.call.command import main

sys.exit(main())
