"""Set up all tests: one torch thread per process, fixed seeds, reproducible property tests."""

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start; before torch reads it

import forked
import hypothesis
import light_worker
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from reference import reference_state_dict

from hrvit_lab import create_model, load_published
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.model import HRViT
from hrvit_lab.study import report, sweep, worker
from hrvit_lab.study.executors import process
from hrvit_lab.study.executors.host import LOCKS
from hrvit_lab.study.report import figures_of
from hrvit_lab.study.results import Results

pytest_plugins = ("browsing",)

torch.set_num_threads(1)

# Background jobs of a shell ignore Ctrl-C, and those under nohup ignore SIGHUP. Processes that tests start inherit
# this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples in every run, and no time limit, so that results do not depend on the machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Exclude loaded modules from garbage collection: each of thousands of collections would search them for half a
    second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary folder for each test process, also for locks. Neither tests nor the processes that they start wait
    for the timing lock of a study, or of another test process."""
    folder = str(tmp_path_factory.mktemp("host"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setenv(LOCKS, folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def forked_workers(own_temporary_folder: None) -> Iterator[None]:
    """Fork the workers of studies that this process runs; commands in separate processes still spawn theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "multiprocessing", forked)
        yield


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Seed all random numbers at the start of every test."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def light_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run studies of this process with workers that do not import torch, for probes that do not need it."""
    monkeypatch.setattr(worker, "main", light_worker.main)


@pytest.fixture
def light_studies(light_workers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run studies of this process with fake probes, for tests in which no training or measurement matters."""
    monkeypatch.setattr(sweep, "PROBES", light_worker.PROBES)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write all figures of results as small blank images, for tests in which their content does not matter."""

    def blank(results: Results) -> dict[str, Figure]:
        figures = figures_of(results)
        for figure in figures.values():
            figure.clear()
            figure.set_layout_engine(None)  # without axes it would warn
            figure.set_size_inches(1, 1)
        return figures

    monkeypatch.setattr(report, "figures_of", blank)


@pytest.fixture(scope="session")
def plain() -> Iterator[HRViT]:
    """hrvit_b1 with the reference weights, in evaluation mode. Tests must not change it; this is checked at the end."""
    model = create_model("hrvit_b1").eval()
    load_published(model, reference_state_dict())
    yield from unchanged(model)


@pytest.fixture(scope="session")
def served(plain: HRViT) -> Iterator[HRViT]:
    """The same network, deployed. Tests must not change it."""
    yield from unchanged(deploy(plain))


def unchanged(model: HRViT) -> Iterator[HRViT]:
    """Share a model between tests, and fail if one of them has changed it."""

    def traces() -> tuple[object, ...]:
        weights = {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
        return weights, modes, hooks, [parameter.grad is None for parameter in model.parameters()]

    before = traces()
    yield model
    assert traces() == before, "a test changed a shared model; change a copy instead"


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore ``__main__``: Streamlit replaces it by its script, which spawned processes would then run again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the app opens the folder `results` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    return tmp_path / "results"
