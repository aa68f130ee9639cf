"""A worker in which one revision of a rule raises: `python -m tests.faults.hostile_worker run`.

RAISE_REVISION names it, RAISE_FROM is the offset from which it raises on every partition.
"""

from __future__ import annotations

import os

from streams.cli import main
from tests.kernel.raising import Raising, plant

if __name__ == "__main__":
    plant(Raising(os.environ["RAISE_REVISION"], int(os.environ["RAISE_FROM"])))
    main()
