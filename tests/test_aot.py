"""Back ends that compile the whole graph: right results; libraries are kept under what they depend on."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor
from torch import nn

from hrvit_lab.latency import aot
from hrvit_lab.latency.aot import compile_to, compiled_ahead, digest
from hrvit_lab.latency.backends import BACKENDS, Refused
from hrvit_lab.latency.compare import Budget
from hrvit_lab.latency.measurement import Entry, Setting
from hrvit_lab.latency.models import NamedModel
from hrvit_lab.latency.race import race
from hrvit_lab.latency.workload import Workload, prepare

CPU = torch.device("cpu")


def network(seed: int = 0, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.GELU(), nn.Flatten(), nn.Linear(36 * width, 5)).eval()


def load(model: nn.Module, batch_size: int = 2, dtype: str = "float32") -> Workload:
    return prepare(model, 8, batch_size=batch_size, device="cpu", dtype=dtype)


def named(model: nn.Module, **settings: Any) -> str:
    """The digest of a network's graph."""
    given = load(model, **settings)
    return digest(torch.export.export(given.model, (given.images_BCHW,)), CPU)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of the libraries."""
    monkeypatch.setenv("HRVIT_LAB_CACHE", str(tmp_path))
    return tmp_path / "aot_inductor"


def test_a_library_is_named_by_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    name = named(network())
    assert name == named(network()) and len(name) == 40
    changed = network()
    with torch.no_grad():
        next(changed.parameters())[0, 0, 0, 0] += 1e-3
    others = {
        "one weight": named(changed),
        "width": named(network(width=8)),
        "batch size": named(network(), batch_size=3),
        "number format": named(network(), dtype="bfloat16"),
        "activation": named(nn.Sequential(*[nn.ReLU() if isinstance(m, nn.GELU) else m for m in network().children()])),
    }
    monkeypatch.setattr(aot, "versions", lambda: {"torch": "9.9"})
    others["versions"] = named(network())
    monkeypatch.undo()
    monkeypatch.setattr(aot, "hardware", lambda device: "another processor")
    others["processor"] = named(network())
    assert len({name, *others.values()}) == 1 + len(others), others


def test_a_library_is_compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Path] = []

    def fake(path: Path, program: torch.export.ExportedProgram) -> None:
        compiled.append(path)
        path.write_bytes(b"library")

    monkeypatch.setattr(aot, "compile_to", fake)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: lambda images: (path, images.shape))
    for batch_size in (2, 2, 3):
        run, seconds = compiled_ahead(load(network(), batch_size))
        path, shape = run()
        assert Path(path).parent == folder and shape == (batch_size, 3, 8, 8) and seconds > 0
    assert len(compiled) == 2 == len(list(folder.iterdir()))


def test_a_damaged_library_is_compiled_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(path: Path, program: torch.export.ExportedProgram) -> None:
        path.write_bytes(b"library")

    def opened(path: str) -> Any:
        if Path(path).read_bytes() != b"library":
            raise RuntimeError("Failed to initialize zip archive")
        return lambda images: images.shape

    monkeypatch.setattr(aot, "compile_to", fake)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", opened)
    compiled_ahead(load(network(), 2))
    (library,) = folder.iterdir()
    library.write_bytes(b"libr")
    run, _ = compiled_ahead(load(network(), 2))
    assert run() == (2, 3, 8, 8) and library.read_bytes() == b"library"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_compilation_leaves_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def stopped(program: Any, *, package_path: str, **_: Any) -> None:
        Path(package_path).write_bytes(b"half a lib")
        raise stop

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", stopped)
    killed = tmp_path / f".export-{0:032}"  # of a process that was killed
    killed.mkdir()
    (killed / "name.pt2").write_bytes(b"half a lib")
    with pytest.raises(stop):
        compile_to(tmp_path / "name.pt2", torch.export.export(network(), (torch.zeros(2, 3, 8, 8),)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["compile_whole", "aot_inductor", "aot_inductor_int8"])
def test_without_a_compiler_it_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    with (
        config.patch({"cpp.cxx": (None, str(folder / "g++"))}),
        pytest.raises(Refused, match=r"needs a C\+\+ compiler; install g\+\+"),
    ):
        BACKENDS[name].prepare(load(network()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # torch's compiler stumbles over its own warnings where they are errors
def test_whole_graphs_compute_the_same(folder: Path) -> None:
    plain = network()
    model = NamedModel("small", plain, plain)
    names = ("eager", "compile_whole", "aot_inductor")
    setting = Setting((8, 8), 2, threads=1)
    results = race([Entry(model, name) for name in names], setting, Budget(max_seconds=1))
    assert [(result.status, result.reason) for result in results] == [("ok", "")] * 3
    assert all((result.relative_error or 0) < 1e-6 for result in results)
    first = results[2].compile_seconds or 0
    [again] = race([Entry(model, "aot_inductor")], setting, Budget(max_seconds=1))
    assert again.status == "ok" and 0 < (again.compile_seconds or 0) < first
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")
def test_a_whole_graph_trains() -> None:
    plain = network()
    model = NamedModel("small", plain, plain)
    entries = [Entry(model), Entry(model, "compile_whole"), Entry(model, "aot_inductor")]
    right, whole, ahead = race(entries, Setting((8, 8), 2, threads=1, training=True), Budget(max_seconds=1))
    assert right.status == whole.status == "ok"
    assert ahead.reason == "AOTInductor of the whole graph supports inference only"
