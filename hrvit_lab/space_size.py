"""``python -m hrvit_lab.space_size``: the number of valid networks."""

import sys

from hrvit_lab.search.space_size import main

if __name__ == "__main__":
    sys.exit(main())
