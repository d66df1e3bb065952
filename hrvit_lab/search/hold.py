"""One process at a time runs a search, on this host or another: it holds a claim in the search's folder.

It is the claim of a study's trials, see `hrvit_lab.study.claims`: no file lock, and void when its owner has ended.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hrvit_lab.config import ConfigError
from hrvit_lab.study.claims import STALE_S, Owner, read_claim, remove_leftovers, try_claim


@dataclass(frozen=True)
class Hold:
    """The right to run a search. It can be pickled for processes of its owner.

    Attributes:
        path: of the claim.
        owner: the process that has it.
    """

    path: Path
    owner: Owner

    def check(self) -> None:
        """Check that the claim is still valid, before files of the search are replaced.

        Raises:
            ConfigError: if another process has taken over the search, because this one was stopped for a while.
        """
        if (found := read_claim(self.path)) != self.owner:
            who = "another process" if found is None else found.who
            raise ConfigError(
                f"{who} has taken over the search in {self.path.parent.parent}, because this one did not touch its "
                f"claim for {STALE_S:g} s; run the command again when that one has ended"
            )


@contextmanager
def held(folder: Path) -> Iterator[Hold]:
    """Context: hold a search.

    Args:
        folder: of its states; it exists.
    Raises:
        ConfigError: if another process holds it; says which one, and since when.
        OSError: if the folder can't be written.
    """
    path = folder / "search.claim"
    claim = try_claim(path)
    if claim is None:
        raise ConfigError(f"{_who_runs(read_claim(path), folder.parent)}; wait for it or end it, or change --out")
    try:
        remove_leftovers(folder)
        yield Hold(path, claim.owner)
    finally:
        claim.release()


def _who_runs(owner: Owner | None, folder: Path) -> str:
    if owner is None:  # it has ended just now
        return f"another process runs this search in {folder}"
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(owner.since))
    return f"{owner.who} has run this search in {folder} since {since}"
