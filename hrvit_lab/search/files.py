"""Find search files."""

from pathlib import Path

from hrvit_lab.config import ConfigError, suggest
from hrvit_lab.study.files import check_name, study_name

SUFFIXES = (".yaml", ".yml")


def find_search(name: str) -> Path:
    """The file of a search: a path that ends in .yaml or .yml, or a name in ``studies/search``.

    Raises:
        ConfigError: if there is none; suggests similar names.
    """
    if name.endswith(SUFFIXES):
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"search file {name!r} not found; check the path, or see --list for shipped searches")
        check_name(study_name(path))
        return path
    known = list_searches()
    if name not in known:
        remedy = suggest(name, known) if known else "there are none in ./studies/search"
        raise ConfigError(f"unknown search {name!r}; {remedy}")
    return known[name]


def list_searches() -> dict[str, Path]:
    """Searches by name; those in ``./studies/search`` take precedence over the checkout's."""
    folders = (Path(__file__).parents[2] / "studies" / "search", Path("studies/search"))
    found = {study_name(path): path for folder in folders for path in sorted(folder.glob("*.yaml"))}
    return {name: found[name] for name in sorted(found)}
