"""Shared fixtures. A part that is absent skips its tests, and fails them under CI=true."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("LEADONE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def absent(part: str) -> None:
    """Skip the running test because ``part`` is missing; under CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {part}", pytrace=False)
    pytest.skip(f"needs {part}")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings, or a skip that says where it was looked for."""
    if not (DATA / "README.md").exists():
        absent(f"the ECG recordings at {DATA} (set LEADONE_DATA)")
    return DATA


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of made-up records that short runs train on."""
    from toy_runs import Toy

    from training.datasets.prepare import prepare

    path = tmp_path_factory.mktemp("toy") / "cache"
    prepare(Toy(), path)
    return path


@pytest.fixture(scope="session")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A restoration net and a teacher, a few steps each."""
    from toy_runs import train_yaml, write_yaml

    runs = tmp_path_factory.mktemp("runs")
    train_yaml(write_yaml(runs / "r.yaml", toy, network="restoration"), runs / "restoration")
    train_yaml(write_yaml(runs / "t.yaml", toy, network="teacher", mix=1), runs / "teacher")
    return runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hardware", metavar="ADDRESS[,KIND]", help="run the tests of a real strap on this one"
    )
