"""``python -m tests.simulation SEED HOURS``: one world, and the trace of all that happened in it."""

from __future__ import annotations

import sys

from tests.simulation.world import lived

if __name__ == "__main__":
    seed, hours = int(sys.argv[1]), float(sys.argv[2])
    sys.stdout.write(lived(seed, hours).trace + "\n")
