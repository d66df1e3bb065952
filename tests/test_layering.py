"""Imports go down only: checks the floors on the source with `ast`, and checks the checker on planted faults."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROW = re.compile(r"^\| (?P<floor>[\w ]+) \| (?P<rooms>`[^|]*) \|", re.MULTILINE)


def read_floors(readme: str) -> tuple[tuple[str, ...], ...]:
    """The README's table of floors, from the ground up: the rooms of each as dotted names.

    `hrvit_lab/study/` is the package, `hrvit_lab/metrics.py` the module; a `*` in a path stands for any one name.
    A room imports itself and the rooms of the floors below it, none of its own floor.
    """
    table = readme[readme.index("| floor | rooms |") :].partition("\n\n")[0]
    floors = [re.findall(r"`([\w/*.]+)`", row["rooms"]) for row in ROW.finditer(table)]
    rooms = [[path.removesuffix(".py").strip("/").replace("/", ".") for path in floor] for floor in floors]
    return tuple(tuple(room.removesuffix(".__init__") for room in floor) for floor in reversed(rooms))


FLOORS = read_floors((ROOT / "README.md").read_text(encoding="utf-8"))
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# Outside packages that only these rooms may import.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "streamlit": ("app", "hrvit_lab.app"),
    "matplotlib": ("hrvit_lab.plots",),
    "fvcore": ("hrvit_lab.cost",),
    "ptflops": ("hrvit_lab.cost",),
}

# Arithmetic and data: rooms that must not need a network library.
TORCH_FREE = (
    "hrvit_lab.parts",
    "hrvit_lab.published",
    "hrvit_lab.config",
    "hrvit_lab.metrics",
    "hrvit_lab.charts",
    "hrvit_lab.files",
    "hrvit_lab.environment",
    "hrvit_lab.space_size",
)
NETWORK_LIBRARIES = ("torch", "torchvision", "timm")


def find_modules(root: Path) -> dict[str, Path]:
    """Every module of the project under `root`: dotted name (a package's is its folder's) -> file."""
    files = [*root.glob("app.py"), *sorted(root.glob("hrvit_lab/**/*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def find_room(module: str) -> str | None:
    """The innermost room that holds `module`; the package itself holds only its own `__init__.py`."""
    rooms = [r for r in HEIGHT if fnmatchcase(module, r) or (r != "hrvit_lab" and module.startswith(f"{r}."))]
    return max(rooms, key=lambda room: (room.count("."), len(room)), default=None)


def find_imports(path: Path, module: str, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import in a file, wherever it stands and however it is written."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(names=names):
                source = resolve_name("." * node.level + (node.module or ""), package)
                for alias in names:  # `from package import x`: x is a module, or a name of the package
                    submodule = f"{source}.{alias.name}"
                    yield node.lineno, submodule if submodule in modules else source
            case ast.Call(
                func=ast.Attribute(attr=function) | ast.Name(id=function),
                args=[ast.Constant(value=str(name)), *_],
            ) if function in ("import_module", "__import__"):
                yield node.lineno, resolve_name(name, package)


def find_fault(room: str, target: str) -> str | None:
    """Why `room` may not import the module `target`, or None."""
    outside = target.partition(".")[0]
    if room not in ONLY_IN.get(outside, (room,)):
        return f"only {' and '.join(ONLY_IN[outside])} may import {outside}"
    if room in TORCH_FREE and outside in NETWORK_LIBRARIES:
        return f"{room} must do without {outside}"
    target_room = find_room(target)
    if target_room is not None and target_room != room and HEIGHT[target_room] >= HEIGHT[room]:
        return f"{room} must not import {target_room}, which is not on a floor below it"
    return None


def find_violations(root: Path) -> list[str]:
    """One line, `file:line: reason`, for every import that breaks a rule and every module without a floor."""
    modules = find_modules(root)
    violations = []
    for module, path in modules.items():
        file = path.relative_to(root).as_posix()
        room = find_room(module)
        if room is None:
            violations.append(f"{file}:1: {module} has no floor: give it one in FLOORS")
            continue
        for line, target in find_imports(path, module, modules):
            if fault := find_fault(room, target):
                violations.append(f"{file}:{line}: {fault}")
    return violations


def test_the_readme_has_floors_for_every_room() -> None:
    assert len(FLOORS) > 6 and len(HEIGHT) == sum(map(len, FLOORS)), "a room stands on two floors"
    assert (
        HEIGHT["hrvit_lab.parts"] < HEIGHT["hrvit_lab.config"] < HEIGHT["hrvit_lab.network"] < HEIGHT["hrvit_lab.cost"]
    )
    assert (
        HEIGHT["hrvit_lab.latency"] == HEIGHT["hrvit_lab.train"] < HEIGHT["hrvit_lab.study"] < HEIGHT["hrvit_lab.app"]
    )
    missing = [room for room in HEIGHT if "*" not in room and not (ROOT / room.replace(".", "/")).exists()]
    assert [room for room in missing if not (ROOT / room.replace(".", "/")).with_suffix(".py").exists()] == []


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.glob("hrvit_lab/**/*.py")
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_imports_go_to_lower_floors_only() -> None:
    assert {"app", "hrvit_lab", "hrvit_lab.config", "hrvit_lab.study.__main__"} <= find_modules(ROOT).keys()
    assert find_violations(ROOT) == []


CLEAN_TREE = {
    "app.py": "from hrvit_lab.app import PAGES\nfrom hrvit_lab import create_model\n",
    "hrvit_lab/__init__.py": "from hrvit_lab.config import HRViTConfig\nfrom .cost.count import count\n",
    "hrvit_lab/app/__init__.py": "import streamlit\nfrom hrvit_lab import plots\nfrom ..study import store\n",
    "hrvit_lab/config/__init__.py": "from pydantic import BaseModel\nfrom hrvit_lab.parts import STEM\n",
    "hrvit_lab/cost/__init__.py": "",
    "hrvit_lab/cost/audit.py": "import fvcore.nn\ndef f():\n    from hrvit_lab.network.model import HRViT\n",
    "hrvit_lab/cost/ledger.py": "from hrvit_lab.config import HRViTConfig\nfrom . import audit\n",
    "hrvit_lab/latency/__init__.py": "from hrvit_lab.network.model import build\nfrom hrvit_lab.cost import ledger\n",
    "hrvit_lab/network/__init__.py": "from .stem import Stem\n",
    "hrvit_lab/network/model.py": "from importlib import import_module\n\nimport_module('hrvit_lab.network.stem')\n",
    "hrvit_lab/network/stem.py": "import torch.nn.functional as F\nfrom ..config import HRViTConfig\n",
    "hrvit_lab/parts/__init__.py": "from hrvit_lab.parts.ops import linear\n",
    "hrvit_lab/parts/ops.py": "import math\n",
    "hrvit_lab/plots/__init__.py": "from matplotlib.figure import Figure\nfrom hrvit_lab.metrics import METRICS\n",
    "hrvit_lab/metrics.py": "",
    "hrvit_lab/study/__init__.py": "",
    "hrvit_lab/study/__main__.py": "from . import store\nfrom hrvit_lab import plots\n",
    "hrvit_lab/study/store.py": "from hrvit_lab.cost.ledger import ledger\nfrom hrvit_lab.train import fit\n",
    "hrvit_lab/train/__init__.py": "from hrvit_lab.network.model import build\n",
}


def plant(root: Path, file: str = "app.py", source: str = "") -> None:
    """Write the clean tree under `root`, with `source` added at the end of one file."""
    for name, text in {file: "", **CLEAN_TREE}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + (source if name == file else ""), encoding="utf-8")


def test_clean_tree_passes(tmp_path: Path) -> None:
    plant(tmp_path)
    assert find_violations(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("hrvit_lab/config/__init__.py", "from hrvit_lab.network.model import build", "hrvit_lab.network"),
        ("hrvit_lab/config/__init__.py", "import hrvit_lab.study.store as store", "hrvit_lab.study,"),
        ("hrvit_lab/config/__init__.py", "from hrvit_lab.cost import ledger", "hrvit_lab.cost,"),
        ("hrvit_lab/parts/ops.py", "from ..config import HRViTConfig", "hrvit_lab.config"),
        ("hrvit_lab/network/stem.py", "from ..cost.ledger import ledger", "hrvit_lab.cost"),
        ("hrvit_lab/network/__init__.py", "from .. import cost", "hrvit_lab.cost"),
        ("hrvit_lab/network/stem.py", "def f():\n    from hrvit_lab import latency", "hrvit_lab.latency"),
        ("hrvit_lab/network/stem.py", "if TYPE_CHECKING:\n    from .. import study", "hrvit_lab.study"),
        ("hrvit_lab/network/model.py", "import_module('hrvit_lab.study')", "hrvit_lab.study,"),
        ("hrvit_lab/network/model.py", "importlib.import_module('..latency', __package__)", "hrvit_lab.latency"),
        ("hrvit_lab/network/model.py", "__import__('hrvit_lab.plots')", "hrvit_lab.plots"),
        ("hrvit_lab/network/model.py", "import hrvit_lab", "import hrvit_lab, "),
        ("hrvit_lab/network/model.py", "from hrvit_lab import create_model", "import hrvit_lab, "),
        ("hrvit_lab/latency/__init__.py", "from ..train import fit", "hrvit_lab.train"),
        ("hrvit_lab/train/__init__.py", "from ..latency import race", "hrvit_lab.latency"),
        ("hrvit_lab/study/store.py", "from hrvit_lab.study import __main__", "hrvit_lab.*.__main__"),
        ("hrvit_lab/app/__init__.py", "import app", "import app,"),
        ("hrvit_lab/misc.py", "import math", "hrvit_lab.misc has no floor"),
        ("hrvit_lab/study/store.py", "import streamlit", "only app and hrvit_lab.app may import streamlit"),
        ("hrvit_lab/study/store.py", "import matplotlib.pyplot as plt", "only hrvit_lab.plots"),
        ("hrvit_lab/network/model.py", "from fvcore.nn import FlopCountAnalysis", "only hrvit_lab.cost"),
        ("hrvit_lab/network/model.py", "def f():\n    import ptflops", "only hrvit_lab.cost"),
        ("hrvit_lab/config/__init__.py", "import torch", "hrvit_lab.config must do without torch"),
        ("hrvit_lab/parts/ops.py", "from torch import nn", "hrvit_lab.parts must do without torch"),
        ("hrvit_lab/parts/__init__.py", "import timm", "hrvit_lab.parts must do without timm"),
    ],
)
def test_planted_fault_is_found(tmp_path: Path, file: str, source: str, reason: str) -> None:
    plant(tmp_path, file, source)
    [violation] = find_violations(tmp_path)
    line = 1 if "no floor" in reason else len((tmp_path / file).read_text(encoding="utf-8").splitlines())
    assert violation.startswith(f"{file}:{line}: ")
    assert reason in violation
