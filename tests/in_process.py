"""The command line within the process of the tests; ``pytest_plugins = ["in_process"]``."""

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from program import Done, Leadone

from monitor.cli import main


@pytest.fixture
def leadone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Leadone]:
    """Run a command in this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["leadone", *map(str, args)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
