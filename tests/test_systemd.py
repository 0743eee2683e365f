"""The systemd unit and its installer, run into a temporary root with a stand-in package."""

import base64
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import absent

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy" / "systemd"
UNIT = DEPLOY / "leadone.service"
INSTALL = DEPLOY / "install.sh"
COMMAND = "/opt/leadone/bin/leadone"
CONFIG = "/etc/leadone/leadone.yaml"


class Unit:
    """A unit file: keys may repeat, so values are lists."""

    def __init__(self, text: str) -> None:
        self.entries: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in text.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.entries.setdefault((section, key), []).append(value)

    def one(self, section: str, key: str) -> str:
        (value,) = self.entries[section, key]
        return value


@pytest.fixture(scope="module")
def unit() -> Unit:
    return Unit(UNIT.read_text(encoding="utf-8"))


def test_it_starts_at_boot_as_its_own_user_and_never_gives_up(unit: Unit) -> None:
    assert unit.one("Install", "WantedBy") == "multi-user.target"
    assert unit.one("Service", "User") == "leadone"
    assert unit.one("Service", "StateDirectory") == "leadone"
    assert unit.one("Service", "ConfigurationDirectory") == "leadone"
    assert unit.one("Service", "Restart") == "always"
    assert 1 <= int(unit.one("Service", "RestartSec")) <= 10
    assert unit.one("Unit", "StartLimitIntervalSec") == "0"
    # A target it "requires" could keep it down, or take it down.
    assert {key for section, key in unit.entries if section == "Unit"} == {
        "Description",
        "After",
        "StartLimitIntervalSec",
    }


def test_it_is_told_to_stop_and_given_time_to(unit: Unit) -> None:
    assert unit.one("Service", "KillSignal") == "SIGTERM"
    assert int(unit.one("Service", "TimeoutStopSec")) >= 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "true"),
        ("PrivateTmp", "true"),
        ("ProtectHome", "true"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("CapabilityBoundingSet", ""),
    ],
)
def test_hardening(unit: Unit, key: str, value: str) -> None:
    assert unit.one("Service", key) == value


def test_it_runs_by_a_command_of_the_documented_contract(unit: Unit) -> None:
    # Nothing before it may keep it from starting, not even by hanging; a "-" is no help then.
    assert not {key for _, key in unit.entries} & {"ExecStartPre", "ExecCondition"}
    assert unit.one("Service", "ExecStart") == f"{COMMAND} run -c {CONFIG}"


def test_after_each_end_it_counts_and_that_can_fail_without_harm(unit: Unit) -> None:
    assert unit.one("Service", "ExecStopPost") == f"-{COMMAND} start-failed -c {CONFIG}"
    # What is counted is neither on a disk that may be full nor gone with the daemon.
    assert unit.one("Service", "RuntimeDirectory") == "leadone"
    assert unit.one("Service", "RuntimeDirectoryMode") == "0750"
    assert unit.one("Service", "RuntimeDirectoryPreserve") == "yes"


@pytest.mark.parametrize(
    "words",
    [
        *(["config", "check"], ["config", "example"], ["db", "upgrade"], ["db", "backup"]),
        *(["run"], ["start-failed"]),
    ],
    ids=" ".join,
)
def test_the_command_line_has_these_commands(words: list[str]) -> None:
    if importlib.util.find_spec("monitor.cli") is None:
        absent("the command line (monitor.cli)")
    shown = subprocess.run(
        [sys.executable, "-c", "from monitor.cli import main; main()", *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert words == ["config", "example"] or " -c" in shown.stdout


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        absent("systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def complaints(unit: Path) -> list[str]:
    # systemd looks at the units this one is ordered after too; those are the machine's business.
    shown = analyze("verify", "--man=no", unit)
    return [line for line in (shown.stdout + shown.stderr).splitlines() if unit.name in line]


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # The program is not installed here, and that is all systemd may hold against the unit.
    copy = tmp_path / "leadone.service"
    text = UNIT.read_text(encoding="utf-8").replace(COMMAND, sys.executable)
    copy.write_text(text, encoding="utf-8")
    assert complaints(copy) == []
    copy.write_text(text.replace("Restart=always", "Restart=perhaps"), encoding="utf-8")
    assert len(complaints(copy)) == 1


def test_systemd_rates_the_hardened_unit_as_little_exposed() -> None:
    if int(analyze("--version").stdout.split()[1]) < 250:
        pytest.skip("this systemd cannot rate a unit that is not loaded")
    result = analyze("security", "--offline=true", "--no-pager", "--threshold=25", UNIT)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr


SCRIPT = """
import sys

def main():
    assert sys.argv[1:] == ["config", "example"]
    print("# {version}")
"""


def make_wheel(
    folder: Path, version: str, name: str = "leadone", requires: str = "beats>=1"
) -> Path:
    """A leadone that answers ``config example`` with its version, or a package of nothing."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    wheel_tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel_tags}
    if name == "leadone":
        files[f"{info}/METADATA"] += f"Requires-Dist: {requires}\nProvides-Extra: postgres\n"
        files[f"{info}/entry_points.txt"] = "[console_scripts]\nleadone = leadone_stub:main\n"
        files["leadone_stub.py"] = SCRIPT.format(version=version)
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip is offered: each version of what leadone needs, the locked one not the newest."""
    folder = tmp_path_factory.mktemp("index")
    for name in ("beats", "driver"):
        for version in ("1.0", "1.1"):
            make_wheel(folder, version, name)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Path:
    """The installer as it lies in the sources, beside requirements that need no network."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(DEPLOY, folder / "deploy/systemd")
    (folder / "requirements").mkdir()
    lock(folder, index)
    return folder


def lock(sources: Path, index: Path) -> None:
    lines = {}
    for name in ("beats", "driver"):
        content = (index / f"{name}-1.0-py3-none-any.whl").read_bytes()
        lines[name] = f"{name}==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
    (sources / "requirements/base.txt").write_text(lines["beats"])
    (sources / "requirements/postgres.txt").write_text(lines["beats"] + lines["driver"])


Install = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def install(sources: Path, index: Path) -> Install:
    def run(
        root: Path | None, *arguments: str | Path, sources: Path = sources, **environment: str
    ) -> tuple[int, str]:
        if sys.platform != "linux":
            absent("Linux")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        done = subprocess.run(
            [sources / INSTALL.relative_to(ROOT), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={
                **kept,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(index),
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PYTHON": sys.executable,
                "DESTDIR": str(root) if root else "",
                **environment,
            },
        )
        return done.returncode, done.stdout + done.stderr

    return run


def installed(root: Path) -> set[str]:
    """Name and version of what the environment of a root holds, but for pip and setuptools."""
    found = (root / "opt/leadone").rglob("site-packages/*.dist-info")
    names = {path.stem for path in found}
    return {name for name in names if not name.startswith(("pip-", "setuptools-"))}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return make_wheel(folder, "1.0"), make_wheel(folder, "1.1")


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory, wheels: tuple[Path, Path], install: Install
) -> Path:
    root = tmp_path_factory.mktemp("root")
    code, output = install(root, wheels[0])
    assert code == 0, output
    assert f"wrote {CONFIG}" in output
    return root


def test_the_installer_puts_everything_in_its_place(root: Path) -> None:
    assert (root / "etc/systemd/system/leadone.service").read_bytes() == UNIT.read_bytes()
    config = root / CONFIG.lstrip("/")
    assert config.read_text() == "# 1.0\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o750
    assert os.access(root / COMMAND.lstrip("/"), os.X_OK)
    assert (root / "usr/local/bin/leadone").readlink() == Path(COMMAND)
    assert {path.name for path in config.parent.iterdir()} == {"leadone.yaml"}


def test_a_second_run_upgrades_and_keeps_the_configuration(
    root: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    config = root / CONFIG.lstrip("/")
    config.write_text("mine: true\n")
    for wheel, version in ((wheels[1], "1.1"), (wheels[1], "1.1"), (wheels[0], "1.0")):
        code, output = install(root, wheel)
        assert code == 0, output
        assert f"kept {CONFIG}" in output
        assert config.read_text() == "mine: true\n"
        said = subprocess.run(
            [root / COMMAND.lstrip("/"), "config", "example"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout == f"# {version}\n"


def test_a_wheel_rebuilt_under_the_same_version_replaces_the_installed_one(
    root: Path, tmp_path: Path, install: Install
) -> None:
    wheel = make_wheel(tmp_path, "2.0")
    assert install(root, wheel)[0] == 0
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("leadone_added.py", "")
    code, output = install(root, wheel)
    assert code == 0, output
    assert list((root / "opt/leadone").rglob("leadone_added.py"))


def test_what_leadone_needs_comes_in_the_locked_version(
    root: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    assert install(root, wheels[0])[0] == 0
    assert installed(root) == {"leadone-1.0", "beats-1.0"}
    code, output = install(root, f"{wheels[1]}[postgres]")
    assert code == 0, output
    assert installed(root) == {"leadone-1.1", "beats-1.0", "driver-1.0"}


def test_a_file_with_another_hash_is_not_installed(
    sources: Path, index: Path, tmp_path: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    shutil.copytree(sources, tmp_path / "sources")
    shutil.copytree(index, tmp_path / "index")
    with zipfile.ZipFile(tmp_path / "index/beats-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("beats_added.py", "")
    code, output = install(
        tmp_path,
        wheels[0],
        sources=tmp_path / "sources",
        PIP_FIND_LINKS=str(tmp_path / "index"),
    )
    assert code == 1
    assert "DO NOT MATCH THE HASHES" in output
    assert installed(tmp_path) == set()
    assert not (tmp_path / CONFIG.lstrip("/")).exists()


def test_a_package_of_another_release_than_the_installer_is_refused(
    tmp_path: Path, install: Install
) -> None:
    code, output = install(tmp_path, make_wheel(tmp_path, "3.0", requires="beats>=1.1"))
    assert code == 1
    assert "leadone 3.0 has requirement beats>=1.1, but you have beats 1.0" in output
    assert not (tmp_path / CONFIG.lstrip("/")).exists()


def test_without_its_requirements_the_installer_touches_nothing(
    sources: Path, tmp_path: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    shutil.copytree(sources / "deploy", tmp_path / "alone/deploy")
    code, output = install(tmp_path / "root", wheels[0], sources=tmp_path / "alone")
    assert code == 1
    assert "no folder" in output
    assert not (tmp_path / "root").exists()


def test_no_half_written_configuration_is_left_behind(
    root: Path, tmp_path: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    bare = tmp_path / "bare"
    (bare / "opt").mkdir(parents=True)
    (bare / "opt/leadone").symlink_to(root / "opt/leadone")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "leadone_stub.py").write_text(
        "def main():\n    print('# half')\n    raise SystemExit(1)\n"
    )
    code, output = install(bare, wheels[0], PYTHONPATH=str(broken))
    assert code == 1
    assert "could not write an example configuration" in output
    assert list((bare / "etc/leadone").iterdir()) == []


def test_uninstalling_leaves_configuration_and_a_foreign_command(
    root: Path, tmp_path: Path, wheels: tuple[Path, Path], install: Install
) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/leadone").symlink_to(root / "opt/leadone")
    foreign = tmp_path / "usr/local/bin/leadone"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("another program")
    code, output = install(tmp_path, wheels[0])
    assert code == 0, output
    assert "left /usr/local/bin/leadone alone" in output
    (tmp_path / "run/leadone").mkdir(parents=True)
    (tmp_path / "run/leadone/last-good.yaml").write_text("secret")
    code, output = install(tmp_path, "--uninstall")
    assert code == 0, output
    assert not (tmp_path / "run/leadone").exists()
    assert not (tmp_path / "opt/leadone").exists()
    assert not (tmp_path / "etc/systemd/system/leadone.service").exists()
    assert (tmp_path / "etc/leadone/leadone.yaml").exists()
    assert foreign.read_text() == "another program"


def test_help_and_misuse(tmp_path: Path, install: Install) -> None:
    code, output = install(tmp_path, "--help")
    assert code == 0
    assert output.startswith("Usage: install.sh")
    assert install(tmp_path, "--frobnicate")[0] == 2
    assert install(tmp_path, "one", "two")[0] == 2
    assert install(tmp_path, "leadone[train]")[0] == 2
    code, output = install(tmp_path, "leadone", PYTHON="/nonexistent/python")
    assert code == 1
    assert "Python 3.11" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may install")
def test_it_asks_for_root(install: Install) -> None:
    code, output = install(None, "package-that-is-not-reached")
    assert code == 1
    assert "must run as root" in output


def test_the_shell_script_is_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run(["shellcheck", INSTALL], capture_output=True, text=True, check=False)
    assert done.stdout == ""
