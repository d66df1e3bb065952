"""``python -m ranked FOLDER``: one process of a trial's training, with the pipe ``STDIN_PIPE`` as its stdin."""

import os
import sys
from pathlib import Path

from hrvit_lab.train.trial_processes import run_rank

if __name__ == "__main__":
    os.dup2(os.open(os.environ["STDIN_PIPE"], os.O_RDONLY), 0)
    sys.exit(run_rank(Path(sys.argv[1])))
