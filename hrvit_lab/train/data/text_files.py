"""Short text files of data sets: lists of classes and of images."""

from pathlib import Path

from hrvit_lab.errors import ConfigError

MAX_BYTES = 64 * 2**20


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without empty ones.

    Raises:
        ConfigError: if it is missing, not text, or larger than ``MAX_BYTES``.
    """
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
        text = body.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    if len(body) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes; a list of names is shorter")
    return [line.strip() for line in text.splitlines() if line.strip()]
