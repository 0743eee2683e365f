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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hardware", metavar="ADDRESS[,KIND]", help="run the tests of a real strap on this one"
    )
