"""The README is short, its links are valid, and its Python code runs."""

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
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
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
