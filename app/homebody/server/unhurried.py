"""Run a command as __main__.py does, with the lowest priority from the beginning.

The imports alone take half a second of a core, which requests would have to share.
"""

from __future__ import annotations

import os
import runpy
from typing import Final

NICENESS: Final = 19

if __name__ == "__main__":
    os.nice(NICENESS)
    runpy.run_module("homebody", run_name="__main__", alter_sys=True)
