"""The README is short, its links are valid, and its Python code runs."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
MAX_WORDS = 1200


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= MAX_WORDS


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
    here = [link for link in links if not link.startswith("http")]
    assert [link for link in here if not (page.parent / link.partition("#")[0]).exists()] == []
    assert here or page.name != "README.md"


def test_every_page_of_the_docs_is_linked() -> None:
    assert {f"docs/{page.name}" for page in DOCS} <= set(re.findall(r"\]\((docs/[^)]+)\)", README))


def test_the_python_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line as printed, but with a small network and an existing checkpoint."""
    import torch

    from hrvit_lab import PRESETS, create_model, with_branches

    monkeypatch.chdir(tmp_path)
    small = with_branches(PRESETS["hrvit_nano"], 2).replace(depths=((1,), (1, 1)), window_sizes=(1, 2))
    Path("small.yaml").write_text(small.to_yaml())
    torch.save(create_model("small.yaml").state_dict(), "b1.pth")
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code.replace("hrvit_b1", "small.yaml").replace("224", "64"), "README.md", "exec"), {})


@pytest.mark.usefixtures("light_studies", "blank_figures")
def test_the_commands_from_a_laptop_to_a_cluster_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As printed, with fake trials, GPUs and Slurm. The jobs stay in the queue, and the command is interrupted."""
    import fake_slurm
    import slurm_probes

    from hrvit_lab.study import engine, requirements, sweep
    from hrvit_lab.study.__main__ import main
    from hrvit_lab.study.executors import slurm

    def interrupt(self: object, seconds: float) -> None:
        raise KeyboardInterrupt

    conditions = engine.environment
    monkeypatch.setattr(sweep, "PROBES", {**sweep.PROBES, "latency": slurm_probes.latency})
    monkeypatch.setattr(engine, "on_node", lambda trials, options, *others, **more: (conditions("cpu"), options))
    monkeypatch.setattr(requirements, "find_device", lambda name: None)
    monkeypatch.setattr(requirements, "hardware", lambda name: "a GPU")
    monkeypatch.setattr(engine, "environment", lambda device: {**conditions("cpu"), "hardware": device})
    monkeypatch.setattr(slurm.Clock, "sleep", interrupt)
    (folder := tmp_path / "cluster").mkdir()
    (folder / "hold").touch()
    monkeypatch.setattr(fake_slurm, "FOLDER", folder)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{fake_slurm.install(folder)}{os.pathsep}{os.environ['PATH']}")
    section = README[README.index("## From a laptop to a cluster") :].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    said = []
    for number, line in enumerate(block.splitlines()):
        *_, arguments = line.partition("#")[0].strip().partition("hrvit-lab study ")
        if "status" not in arguments:  # each in a folder of its own, so that there is something to run
            (tmp_path / str(number)).mkdir()
            monkeypatch.chdir(tmp_path / str(number))
        said.append((main(arguments.split()), capsys.readouterr().out))
    assert [code for code, _ in said] == [0, 0, 0, 130, 0]
    assert "jobs of at most 1 trial in 2 arrays" in " ".join(said[2][1].split())
    assert re.match(r"branch_sweep: ([0-9]+) trials: \1 queued\.", said[4][1])
    for job in fake_slurm.jobs():
        fake_slurm.write(job, state="CANCELLED")
