"""The files around the package, for pip, conda, make and other machines."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SLOW_RUN = (ROOT / ".ci" / "slow").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def read_constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


PINS = {canonicalize_name(pin.name): pin for pin in read_constraints()}


def pinned_version(pin: Requirement) -> str:
    [specifier] = pin.specifier
    return specifier.version


def direct_dependencies() -> list[Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    return [r for r in map(Requirement, lines) if r.name != PROJECT["name"]]


def test_constraints_are_exact_pins_from_the_registry() -> None:
    assert len(PINS) == len(read_constraints()), "a package is pinned twice"
    for pin in PINS.values():
        assert re.fullmatch(r"==[\w.!]+", str(pin.specifier)), f"{pin}: not an exact public version"
        assert pin.url is None, f"{pin}: a URL or a path"
    assert canonicalize_name(PROJECT["name"]) not in PINS


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=str)
def test_every_direct_dependency_has_a_lower_bound_that_its_pin_meets(requirement: Requirement) -> None:
    assert ">=" in {specifier.operator for specifier in requirement.specifier}
    assert requirement.specifier.contains(pinned_version(PINS[canonicalize_name(requirement.name)]))


def installed_requirements(roots: list[Requirement]) -> Iterator[Requirement]:
    """`roots` and all their direct and indirect dependencies here, from the installed metadata."""
    seen: set[tuple[str, str]] = set()
    queue = list(roots)
    while queue:
        requirement = queue.pop()
        yield requirement
        for extra in {"", *requirement.extras}:
            if (requirement.name, extra) in seen:
                continue
            seen.add((requirement.name, extra))
            try:
                lines = metadata.requires(requirement.name) or []
            except metadata.PackageNotFoundError:  # of an extra that is not installed here
                continue
            children = map(Requirement, lines)
            queue += [c for c in children if c.marker is None or c.marker.evaluate({"extra": extra})]


def test_every_indirect_dependency_is_pinned_too() -> None:
    needed = {canonicalize_name(r.name) for r in installed_requirements(direct_dependencies())}
    assert len(needed) > 2 * len(direct_dependencies()), "the walk found no indirect dependencies"
    assert needed - PINS.keys() == set()


def test_conda_environment_installs_this_project_at_these_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    *conda, from_pip = environment["dependencies"]
    [python] = [line.partition("=")[2] for line in conda if line.startswith("python=")]
    assert python in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert "pip" in conda
    constraints, project = from_pip["pip"]
    assert constraints == "-c constraints.txt"
    assert set(re.fullmatch(r"-e \.\[([\w,]+)\]", project)[1].split(",")) == EXTRAS.keys()  # type: ignore[index]


def test_make_help_lists_every_phony_target() -> None:
    phony, alias = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    command = ["make", "--no-print-directory"]  # no target: help is the default
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(re.findall(r"^  make (\w+)\t\S", shown, re.MULTILINE)) == set(phony.split())
    # Otherwise make reports that the folder tests is up to date.
    assert alias == "tests" and "\ntests: test\n" in MAKEFILE
    assert max(len(line.expandtabs()) for line in shown.splitlines()) <= 80


def test_makefile_installs_extras_that_exist() -> None:
    installed = re.findall(r"EXTRAS = \[(.*)\]$", MAKEFILE, re.MULTILINE)
    # Inference engines and clusters are optional.
    assert {extra for line in installed for extra in line.split(",")} == EXTRAS.keys() - {"latency", "slurm"}


# The brackets prevent matches in this file; me and jo are users in examples only.
PRIVATE_PATH = re.compile(r"(?<![\w.:/-])/(?:w[o]rk|r[o]ot|h[o]me(?!/(?:me|jo)\b)|U[s]ers|t[m]p/w)/")
REGISTRY_HOST = re.compile(r"p[y]pi[.]org|python[h]osted[.]org|pytorch[.]org/[w]hl|[a]naconda[.]com|[d]ebian[.]org")


def find_private(text: str) -> list[str]:
    """Private paths of a machine and hosts of package registries in `text`."""
    return PRIVATE_PATH.findall(text) + REGISTRY_HOST.findall(text)


@pytest.mark.parametrize(
    "parts",
    [
        "| work | main",
        "cd '| root | x'",
        "=| home | ann",
        "https:|| pypi . org",
        "download . pytorch . org | whl",
    ],
)
def test_private_places_are_recognised(parts: str) -> None:
    assert find_private(parts.replace(" ", "").replace("|", "/"))


@pytest.mark.parametrize(
    "text", ["hrvit_lab/work/x.py", "./home/x", "/home/me/x", "https://example.org/home/", "/usr/share/x"]
)
def test_public_places_are_not_reported(text: str) -> None:
    assert find_private(text) == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_a_private_place() -> None:
    command = f"git -c safe.directory={ROOT} ls-files -z --cached --others --exclude-standard".split(" ")
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert ROOT / "Makefile" in files
    found = {}
    for path in filter(Path.is_file, files):
        if places := find_private(path.read_bytes().decode(errors="ignore")):
            found[path.relative_to(ROOT).as_posix()] = places
    assert found == {}


def test_the_tests_that_the_slow_run_leaves_out_exist() -> None:
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r'LEFT_OUT="(?:\$LEFT_OUT)?(.*)"', SLOW_RUN))))
    words -= {"or", "and", "not"}
    assert len(words) > 5
    tests = list((ROOT / "tests").glob("test_*.py"))
    names = [path.stem for path in (*tests, *(ROOT / "notebooks").glob("*.ipynb"))]
    names += [name for path in tests for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))]
    assert [word for word in sorted(words) if not any(word in name for name in names)] == []
