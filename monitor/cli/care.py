"""``leadone config`` and ``leadone db``: care of the installation."""

import json
import sys
from pathlib import Path

from models.bundle import BundleError
from models.runtime import Runtime
from monitor.cli.care_findings import warnings_at
from monitor.cli.setup import prepare
from monitor.config import load_config, schema
from monitor.contacts import build_channels
from monitor.storage import maintenance
from monitor.storage.database import describe, parse_url


def check_config(path: Path) -> None:
    """See whether all is there that ``run`` needs but for the database, without running.

    What it warns of is no problem: the daemon runs with it.

    Raises:
        ConfigError: with a line for each problem, a channel that cannot be used among them.
        BundleError: if the bundle cannot be used.
    """
    config, bundle, sources = prepare(path)
    if isinstance(bundle, BundleError):
        raise bundle
    build_channels(config)
    Runtime(bundle, config.inference.threads)
    sys.stdout.write(
        f"{path}: good: {len(config.patients)} patients, {len(sources)} sources, "
        f"bundle {bundle.name}\n"
    )
    for warning in warnings_at(config, path):
        sys.stdout.write(f"{path}: warning: {warning}\n")


def print_schema() -> None:
    """The JSON schema, on standard output."""
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


def upgrade_database(path: Path) -> None:
    """Create or upgrade the configured database."""
    url = _url(path)
    maintenance.upgrade(url)
    sys.stdout.write(
        f"{describe(parse_url(url))}: at revision {maintenance.current_revision(url)}\n"
    )


def check_database(path: Path, *, json_lines: bool) -> int:
    """Print every problem; 1 if there is one, else 0."""
    url = _url(path)
    problems = maintenance.check(url)
    for problem in problems:
        sys.stdout.write((json.dumps({"problem": problem}) if json_lines else problem) + "\n")
    if not problems and not json_lines:
        sys.stdout.write(f"{describe(parse_url(url))}: all is well\n")
    return 1 if problems else 0


def backup_database(path: Path, target: Path) -> None:
    """Copy the configured database to ``target``."""
    maintenance.backup(_url(path), target)
    sys.stdout.write(f"{target}: written and verified, {target.stat().st_size} bytes\n")


def _url(path: Path) -> str:
    return load_config(path).database.get_secret_value()
