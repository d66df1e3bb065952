"""Read checkpoint files from untrusted sources.

Only tensors are created. Compressed files are rejected before they are read. Every error is one sentence.
"""

import io
import pickletools
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file

from hrvit_lab.cli import printable
from hrvit_lab.errors import ConfigError

MAX_CHECKPOINT_BYTES = 8 * 1024**3
MAX_PICKLE_BYTES = 16 * 1024**2
"""Maximum size of the pickle with names and offsets. It is much larger in memory; 1,000 tensors take 0.2 MB."""

BOOKKEEPING = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.{function}" for core in ("core", "_core") for function in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
)  # fmt: skip
"""Other objects that training scripts save. They are read as `Ignored` and never created."""

TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|_codecs\.encode"
    r"|torch\.(\w+Storage|storage\.\w+Storage|Size|device|nn\.parameter\.Parameter)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|serialization\._get_layout)"
    r"|torch\.(b?float|q?u?int|complex|bool|bits|per_)\w*"
)
"""Objects of which tensors consist. torch's own check is stricter, except for objects that allocate memory of any
size, which are excluded here."""

ONLY_TENSORS = "but only tensors are loaded; save the weights alone: torch.save(model.state_dict(), …)"


class Ignored:
    """Placeholder for an object that is not read; it accepts any state and discards it."""

    def __new__(cls, *_: Any) -> "Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class Unreadable(Exception):
    """The reason why a file is not a checkpoint, as the end of a sentence that begins with its name."""


def read_checkpoint(path: str | Path) -> Any:
    """Read a PyTorch or safetensors file to the CPU; objects other than weights are read as `Ignored`.

    Tensors of PyTorch files are memory-mapped, except in the format from before PyTorch 1.6.

    Raises:
        ConfigError: in one sentence, if it is not such a file, contains other objects, or is larger than 8 GiB.
    """
    path = Path(path)
    try:
        return _read(path)
    except Unreadable as error:
        raise ConfigError(f"checkpoint {shown(str(path))} {error}") from None
    except Exception as error:  # libraries raise various exceptions for broken files
        if "Weights only load failed" in str(error):  # torch allows fewer objects than `TENSORS`
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = shown(found[1]) if found else "an object that is no tensor"
            raise ConfigError(f"checkpoint {shown(str(path))} contains {what}, {ONLY_TENSORS}") from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
        reason = shown((reason or type(error).__name__).splitlines()[0], 120)
        raise ConfigError(
            f"checkpoint {shown(str(path))} can't be read ({reason}); "
            "give a file that torch.save(model.state_dict(), …) or safetensors wrote"
        ) from None


def _read(path: Path) -> Any:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise Unreadable("is not a file; give the path of a checkpoint") from None
    if stat.S_ISDIR(found.st_mode):
        raise Unreadable("is a directory; give a file of weights")
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("is not a file; give the path of a checkpoint")
    if found.st_size > MAX_CHECKPOINT_BYTES:
        raise Unreadable(f"is larger than {MAX_CHECKPOINT_BYTES // 1024**3} GiB; save the weights only")
    with path.open("rb") as file:
        start = file.read(64)
        zipped, safetensors = start[:4] == b"PK\x03\x04", start[8:9] == b"{"
        pickled = start[:1] == b"\x80" and not safetensors  # safetensors starts with a length: any first byte
        if not (zipped or pickled or safetensors):
            begins = f"it begins with {start[:40]!r}" if start else "it is empty"
            raise Unreadable(f"can't be read: it is neither a PyTorch nor a safetensors file, {begins}")
        file.seek(0)
        if zipped:
            pickles = io.BytesIO(_checked_pickle(file, found.st_size))
        elif pickled:
            pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        else:
            return load_file(path)
    # Before PyTorch 1.6, a file had three pickles of metadata, then the objects, then the tensors.
    for _ in range(1 if zipped else 4):
        _check_globals(pickles)
    with torch.serialization.safe_globals([(Ignored, name) for name in BOOKKEEPING]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's format; bad tensors are reported by name
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _checked_pickle(file: IO[bytes], size: int) -> bytes:
    """The pickle of a PyTorch archive without compressed or overlapping entries.

    Raises:
        Unreadable: if there are any. PyTorch does not write them; they can fill the memory.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Unreadable(
                f"is compressed: its {size:,} bytes would inflate to {total:,}; "
                "save it with torch.save, which does not compress"
            )
        pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Unreadable("is not a PyTorch checkpoint: it has no data.pkl, or several; give one of torch.save")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise Unreadable(f"describes more than {MAX_PICKLE_BYTES // 1024**2} MiB of objects; save the weights only")
        return archive.read(pickles[0])


def _check_globals(pickled: IO[bytes]) -> None:
    """Raise `Unreadable` if a pickle needs other objects than tensors and `BOOKKEEPING`; names the first one."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in BOOKKEEPING and not TENSORS.fullmatch(name):
                raise Unreadable(f"contains {shown(name)}, {ONLY_TENSORS}")


def shown(text: str, length: int = 200) -> str:
    """Text from a file for an error message: one line, printable characters, limited length."""
    line = printable(re.sub(r"\x1b\[[\d;]*m", "", text)).replace("\n", "\\n")
    return line if len(line) <= length else line[: length - 1] + "…"
