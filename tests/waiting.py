"""``python -m waiting SECONDS``: a process for tests that says when it has begun, and waits."""

import sys
import time

if __name__ == "__main__":
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
