"""``python -m hrvit_lab.study`` with the workers and probes of `light_worker`, for tests of a study's processes."""

import sys

import light_worker

from hrvit_lab.study import sweep, worker
from hrvit_lab.study.__main__ import main

if __name__ == "__main__":
    worker.main = light_worker.main
    sweep.PROBES.update(light_worker.PROBES)
    sys.exit(main(sys.argv[1:]))
