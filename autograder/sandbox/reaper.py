"""The first process of a box that a kernel enters from outside: waits for it and for orphans.

    python -I -S reaper.py

Says that the box stands, is told the kernel's process id there, and ends the box with it.
"""

import os
import sys
import time


def main() -> None:
    """Print `ready`, read the id, wait until that process ends."""
    print("ready", flush=True)
    line = sys.stdin.readline()
    kernel = int(line) if line.strip() else 0
    while kernel:
        try:
            if os.wait()[0] == kernel:
                return
        except ChildProcessError:  # it still has the parent that brought it here
            time.sleep(0.001)


if __name__ == "__main__":
    main()
