"""A digest of the package's source, by which a job or a kept result notices that it is of other code."""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
SUFFIXES = (".py", ".yaml", ".csv")


def source_digest(package: Path = PACKAGE) -> str:
    """16 hex digits, equal for equal files of the package: names and contents of code, recipes and tables."""
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in SUFFIXES):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
