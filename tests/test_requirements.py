"""The hash-locked requirements: whole, in step with pyproject.toml, and used everywhere."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
LOCKS = ("base", "postgres", "dev", "build", "cuda", "uv", "torch-cpu")
MACHINES = list(product(("x86_64", "aarch64"), ("3.11", "3.12", "3.13")))
HASH = r"\n    --hash=sha256:[0-9a-f]{64}"
ENTRY = rf"\w\S*==\S+(?: ; [^\\\n]+)? \\{HASH}(?: \\{HASH})*"


def read(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def entries(name: str) -> list[Requirement]:
    lines = re.findall(r"^\w.*", read(name), re.MULTILINE)
    return [Requirement(line.rstrip("\\")) for line in lines]


def there(machine: tuple[str, str]) -> dict[str, str]:
    """How markers see CPython on Linux on such a machine."""
    processor, python = machine
    return {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": processor,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_version": python,
        "python_full_version": f"{python}.4",
        "extra": "",
    }


def pins(name: str, machine: tuple[str, str]) -> dict[str, str]:
    """The version of each package that pip would install there; one entry may hold of each."""
    found: dict[str, str] = {}
    for entry in entries(name):
        if entry.marker is None or entry.marker.evaluate(there(machine)):
            assert entry.name not in found, entry
            (pin,) = entry.specifier
            found[canonicalize_name(entry.name)] = pin.version
    return found


def wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    return [Requirement(line) for line in lines if not line.startswith("leadone[")]


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_a_version_with_its_hashes(name: str) -> None:
    # And so neither a URL nor an option, which could name a place to install from.
    assert re.fullmatch(rf"(?:(?:#.*|{ENTRY})\n)+", read(name))
    assert "://" not in read(name)


def test_there_are_no_other_files() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(LOCKS)


@pytest.mark.parametrize("machine", MACHINES, ids="-".join)
@pytest.mark.parametrize(
    ("name", "extras"),
    [("base", []), ("postgres", ["postgres"]), ("dev", ["postgres", "train", "dev"])],
)
def test_each_requirement_of_the_project_is_locked_within_its_range(
    name: str, extras: list[str], machine: tuple[str, str]
) -> None:
    locked = pins(name, machine)
    for each in wanted(*extras):
        if each.marker is None or each.marker.evaluate(there(machine)):
            assert each.specifier.contains(locked[canonicalize_name(each.name)]), each


@pytest.mark.parametrize("machine", MACHINES, ids="-".join)
def test_the_files_agree(machine: tuple[str, str]) -> None:
    dev = pins("dev", machine)
    for name in ("base", "postgres", "build"):
        assert pins(name, machine).items() <= dev.items()
    assert not pins("cuda", machine).keys() & dev.keys()
    assert pins("base", machine).items() <= pins("postgres", machine).items()
    assert pins("torch-cpu", machine) == {"torch": f"{dev['torch']}+cpu"}


def test_what_builds_leadone_is_locked_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = pins("build", MACHINES[0])
    for line in project["build-system"]["requires"]:
        each = Requirement(line)
        assert each.specifier.contains(locked[each.name])


@pytest.mark.parametrize(
    ("name", "extras"),
    [("base", []), ("postgres", ["postgres"]), ("dev", ["postgres", "train", "dev"])],
)
def test_what_the_requirements_require_is_locked_too(name: str, extras: list[str]) -> None:
    locked = {canonicalize_name(entry.name) for entry in [*entries(name), *entries("cuda")]}
    waiting = [(each, "") for each in wanted(*extras)]
    seen = set()
    while waiting:
        each, extra = waiting.pop()
        if each.marker is not None and not each.marker.evaluate({"extra": extra}):
            continue
        assert canonicalize_name(each.name) in locked, each
        try:
            needs = distribution(each.name).requires or []
        except PackageNotFoundError:  # tests that are run in an environment of less
            pytest.skip(f"{each.name} is not installed here")
        for inner in ("", *each.extras):
            if (each.name, inner) not in seen:
                seen.add((each.name, inner))
                waiting.extend((Requirement(line), inner) for line in needs)
    assert len(seen) >= len(wanted(*extras))


@pytest.mark.parametrize(
    "file", ["Makefile", ".ci/run", "deploy/systemd/install.sh"], ids=lambda file: file
)
def test_nothing_is_installed_that_is_not_locked(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for line in re.findall(r".*(?:pip|\$\(PIP\))\s.*\binstall\b.*", text):
        assert "--require-hashes" in line or ("--no-deps --no-build-isolation" in line), line
