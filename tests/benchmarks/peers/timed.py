"""``python timed.py COMMAND ...``: how long a command took, and the most memory that it had.

A small process of its own, because a child's peak begins with what its parent has. It imports nothing of the project.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

if __name__ == "__main__":
    start = time.perf_counter()
    done = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    found = {"seconds": seconds, "peak_mb": peak_mb, "code": done.returncode}
    json.dump(found | {"output": done.stdout, "errors": done.stderr[-1000:]}, sys.stdout)
