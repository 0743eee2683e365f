"""What leadone and the locked requirements put on a gateway."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("alerts", "ingest", "models", "monitor", "training")
UNWANTED = ("torch", "scipy", "scikit-learn")

# Compiled files are in the list of a package's files too, so nothing is left out.
_SIZES = """
import json
from importlib.metadata import distributions
def size(d):
    paths = (d.locate_file(f) for f in d.files or ())
    return sum(p.stat().st_size for p in paths if p.is_file())
print(json.dumps({d.name.lower(): size(d) for d in distributions()}))
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes in MB of a million bytes; pip itself is not counted.

    Attributes:
        total: all of site-packages.
        packages: each distribution's, the largest first.
    """

    total: float
    packages: dict[str, float]


class NotInstalledError(Exception):
    """The installation could not be tried, and why."""


def footprint() -> Footprint:
    """Install the base package into a new environment and weigh it.

    Raises:
        NotInstalledError: pip failed, as it does without a network.
        AssertionError: a training library came along.
    """
    with tempfile.TemporaryDirectory(prefix="leadone-bench-") as folder:
        source = Path(folder) / "source"
        # A copy, for a build leaves its traces where it is made.
        for name in PACKAGES:
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        for path in (ROOT / "pyproject.toml", *ROOT.glob("README*"), *ROOT.glob("LICENSE*")):
            shutil.copy(path, source)
        environment = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = str(environment / "bin" / "python")
        install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        locked = [f"--requirement={ROOT / 'requirements' / name}.txt" for name in ("build", "base")]
        for what in (
            ["--require-hashes", "--only-binary=:all:", *locked],
            ["--no-deps", "--no-build-isolation", str(source)],
        ):
            done = subprocess.run([*install, *what], capture_output=True, text=True, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
                raise NotInstalledError(f"pip failed: {last[0][:200]}")
        weighed = subprocess.run([python, "-c", _SIZES], capture_output=True, text=True, check=True)
        sizes: dict[str, int] = json.loads(weighed.stdout)
    for tool in ("pip", "setuptools"):
        sizes.pop(tool, None)
    assert not sizes.keys() & set(UNWANTED), sorted(sizes)
    largest = sorted(sizes, key=lambda name: -sizes[name])
    return Footprint(sum(sizes.values()) / 1e6, {name: sizes[name] / 1e6 for name in largest})
