"""Find search files, as study files are found."""

from pathlib import Path

from hrvit_lab.study.files import find_file, list_files


def find_search(name: str) -> Path:
    """The file of a search: a path that ends in .yaml or .yml, or a name in ``studies/search``.

    Raises:
        ConfigError: if there is none; suggests similar names.
    """
    return find_file(name, "search", list_searches())


def list_searches() -> dict[str, Path]:
    """Searches by name; those in ``./studies/search`` take precedence over the checkout's."""
    return list_files("studies/search")
