"""Read checkpoint files from untrusted sources.

Only tensors are built. Compressed files are refused before they are read. Every error is one sentence.
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
"""Of what names and places the tensors, in memory many times as large as in the file; 1,000 tensors take 0.2 MB."""

BOOKKEEPING = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.{function}" for core in ("core", "_core") for function in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
)  # fmt: skip
"""What training scripts save beside the weights. It is read as `Ignored`, so none of it is built."""

TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex)|_codecs\.encode"
    r"|torch\.(\w+Storage|storage\.\w+Storage|Size|device|nn\.parameter\.Parameter)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|serialization\._get_layout)"
    r"|torch\.(b?float|q?u?int|complex|bool|bits|per_)\w*"
)
"""What tensors are made of. torch's own list is the stricter one, but for what allocates as much as it is told to."""


class Ignored:
    """Stands for an object that is not read: takes any state and keeps none."""

    def __new__(cls, *_: Any) -> "Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class Unreadable(Exception):
    """Why a file is no checkpoint, as the end of a sentence that begins with its name."""


def read_checkpoint(path: str | Path) -> Any:
    """What a PyTorch or safetensors file holds, on the CPU; bookkeeping beside the weights is read as `Ignored`.

    Tensors of a PyTorch file stay in it (memory-mapped) until they are used, if it is no older than PyTorch 1.6.

    Raises:
        ConfigError: in one sentence, for what is no such file, holds other objects, or is larger than 8 GiB.
    """
    path = Path(path)
    try:
        return _read(path)
    except Unreadable as error:
        raise ConfigError(f"checkpoint {shown(str(path))} {error}") from None
    except Exception as error:  # each library raises its own kinds for broken files
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
        raise Unreadable("is a directory; give the file of weights in it")
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("is not a file; give the path of a checkpoint")
    if found.st_size > MAX_CHECKPOINT_BYTES:
        raise Unreadable(f"is larger than {MAX_CHECKPOINT_BYTES // 1024**3} GiB; save the weights only")
    with path.open("rb") as file:
        start = file.read(64)
        zipped, safetensors = start[:4] == b"PK\x03\x04", start[8:9] == b"{"
        pickled = start[:1] == b"\x80" and not safetensors  # whose first byte is of a length, and may be any
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
    # Before PyTorch 1.6 the objects came after three pickles about the file, and the tensors after them.
    for _ in range(1 if zipped else 4):
        _check_globals(pickles)
    with torch.serialization.safe_globals([(Ignored, name) for name in BOOKKEEPING]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on how the file was written; what is wrong with a tensor is said by its name
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _checked_pickle(file: IO[bytes], size: int) -> bytes:
    """The pickle of a PyTorch archive in which nothing is larger than it is in the file.

    Raises:
        Unreadable: PyTorch compresses nothing, so compressed or overlapping entries are made to inflate.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Unreadable(
                f"is compressed: its {size:,} bytes would inflate to {total:,}; "
                "save it with torch.save, which compresses nothing"
            )
        pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Unreadable("is not a PyTorch checkpoint: it has no data.pkl, or several; give one of torch.save")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise Unreadable(f"describes more than {MAX_PICKLE_BYTES // 1024**2} MiB of objects; save the weights only")
        return archive.read(pickles[0])


def _check_globals(pickled: IO[bytes]) -> None:
    """Refuse a pickle that needs other objects than tensors and bookkeeping, by the name of the first one."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in BOOKKEEPING and not TENSORS.fullmatch(name):
                raise Unreadable(
                    f"contains {shown(name)}, but only tensors are loaded; "
                    "save the weights alone: torch.save(model.state_dict(), …)"
                )


def shown(text: str, length: int = 200) -> str:
    """Text from a file, in one line, without terminal codes, and cut."""
    line = printable(re.sub(r"\x1b\[[\d;]*m", "", text)).replace("\n", "\\n")
    return line if len(line) <= length else line[: length - 1] + "…"
