"""Renew the hash-locked requirements beside this script, from pyproject.toml. Run by ``make lock``.

- ``base.txt``: what the daemon runs with; ``postgres.txt``: the same with the extra of that name;
- ``dev.txt``: that, and what tests, checks and training need;
- ``cuda.txt``: what the build of torch that PyPI has for Linux needs on top;
- ``build.txt``: what builds leadone itself; ``uv.txt``: what this script runs.

Only ``torch-cpu.txt`` is kept by hand: uv finds no build there that PyPI does not have.

Each names every file of a version, those for other machines included, by its SHA-256. A version may
depend on Python's or on the platform, never on the machine this is run on.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent / "pyproject.toml"
UV = Path(sys.executable).with_name("uv")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
PYTHONS = ("3.11", "3.12", "3.13")
# What only the CUDA build of torch requires.
CUDA = re.compile(r"nvidia-|cuda-|triton==")


def main() -> None:
    """Write the files, the widest first: the others take their versions from it."""
    build = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["build-system"]["requires"]
    everything = _entries(_locked(PROJECT, "--extra=dev", "--extra=train"))
    dev = _write("dev", [entry for entry in everything if not CUDA.match(entry)])
    cuda = _write("cuda", [entry for entry in everything if CUDA.match(entry)])
    as_there = f"--constraints={dev}"
    _write("base", _entries(_locked(PROJECT, as_there)))
    _write("postgres", _entries(_locked(PROJECT, as_there, "--extra=postgres")))
    _write("build", _entries(_locked("-", as_there, text="\n".join(build))))
    _write("uv", _entries(_locked("-", text="uv")))
    for platform in PLATFORMS:
        for python in PYTHONS:
            # Fails unless there is a wheel of everything: nothing is to be compiled there.
            there = (f"--python-platform={platform}", f"--python-version={python}")
            _compile(str(dev), str(cuda), "--no-deps", "--only-binary=:all:", *there)


def _locked(source: Path | str, *options: str, text: str = "") -> str:
    """Resolve anew, for all platforms and every Python from 3.11 on."""
    form = ("--universal", "--python-version=3.11", "--generate-hashes")
    bare = ("--no-header", "--no-annotate")
    return _compile(str(source), *form, *bare, *options, text=text)


def _compile(*arguments: str, text: str = "") -> str:
    """Run ``uv pip compile`` and return what it prints, or exit as it does, after its own words."""
    command = [str(UV), "pip", "compile", "--quiet", *arguments]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def _entries(text: str) -> list[str]:
    """Cut a requirements file into its entries: a line, and the indented lines of its hashes."""
    return re.findall(r"^\S.*\n(?:\s.*\n)*", text, re.MULTILINE)


def _write(name: str, entries: list[str]) -> Path:
    path = FOLDER / f"{name}.txt"
    path.write_text("# Written by make lock.\n" + "".join(entries), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
