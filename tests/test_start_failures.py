"""A daemon that does not run: counted over its starts, and told without it."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from program import Program, simulator, write_config
from structlog.testing import capture_logs

from monitor import last_words
from monitor.cli.errors import CommandError
from monitor.cli.start_failures import note_end

FAILED = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "1"}
KILLED = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
STOPPED = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}


class House:
    """Somebody who is told, and the folders that systemd makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime, self.state = folder / "run", folder / "state"
        self.runtime.mkdir()
        self.state.mkdir()
        self.environment = {
            "RUNTIME_DIRECTORY": str(self.runtime),
            "STATE_DIRECTORY": str(self.state),
        }
        script = folder / "tell"
        script.write_text(
            f"#!/bin/sh\nname=$1; test -e {folder}/deaf-$name && exit 75\n"
            f"cat >> {folder}/told-$name; echo >> {folder}/told-$name\n"
        )
        script.chmod(0o755)

    def contact(self, name: str) -> dict[str, Any]:
        command = [str(self.folder / "tell"), name]
        return {"name": name, "channels": [{"type": "command", "command": command}]}

    def config(self, **alarms: Any) -> Path:
        return write_config(
            self.folder,
            [simulator()],
            alarms={"contacts": [self.contact("anna")]} | alarms,
            log={"format": "json"},
        )

    def told(self, name: str = "anna") -> list[dict[str, Any]]:
        file = self.folder / f"told-{name}"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def counted(self) -> dict[str, Any]:
        content = json.loads((self.runtime / "start-failures.json").read_text())
        assert isinstance(content, dict)
        return content

    def later(self, seconds: float) -> None:
        """Let what was counted be so much longer ago."""
        content = self.counted()
        content["at_s"] -= seconds
        for name in ("tried_s", "told_s"):
            content[name] = {key: at_s - seconds for key, at_s in content[name].items()}
        for folder in (self.runtime, self.state):
            (folder / "start-failures.json").write_text(json.dumps(content))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    house = House(tmp_path)
    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)
    return house


# --- the programs, as systemd runs them


def service(house: House, config: Path, *, ready: bool, number: signal.Signals | None) -> None:
    """One start of the daemon and its end, and then what systemd runs after it."""
    with Program("run", "-c", config, folder=house.folder, env=house.environment) as program:
        if ready:
            program.until_logged("ready")
        code = program.end(number).code
    said = {0: STOPPED, 1: FAILED, -signal.SIGKILL: KILLED}[code]
    environment = house.environment | said
    with Program(*("start-failed", "-c", config), folder=house.folder, env=environment) as program:
        assert program.end().code == 0, program.err


def test_a_configuration_broken_by_an_edit_is_told_by_the_one_before(house: House) -> None:
    config = house.config()
    service(house, config, ready=True, number=signal.SIGTERM)
    assert not (house.runtime / "start-failures.json").exists()
    for folder in (house.runtime, house.state):
        assert (folder / "last-good.yaml").read_bytes() == config.read_bytes()
        assert (folder / "last-good.yaml").stat().st_mode & 0o777 == 0o600
    config.write_text(config.read_text().replace("alarms:", "alarm:"))
    for _ in range(2):
        service(house, config, ready=False, number=None)
        assert house.told() == []
    service(house, config, ready=False, number=None)
    (message,) = house.told()
    assert message["title"] == "URGENT: Lead One does not run"
    assert message["priority"] == "high"
    assert "Lead One has failed 3 times in a row since " in message["body"]
    assert f"Why: {config}: alarm: unknown key; did you mean 'alarms'?" in message["body"]
    assert message["data"]["kind"] == "not_running"
    assert message["data"]["failures"] == 3
    # Once; and again each hour.
    service(house, config, ready=False, number=None)
    assert len(house.told()) == 1


def test_a_daemon_that_is_killed_again_and_again(house: House) -> None:
    """As by the kernel, or by the watchdog; the configuration is good, and nothing says why."""
    config = house.config()
    for _ in range(3):
        service(house, config, ready=True, number=signal.SIGKILL)
    (message,) = house.told()
    assert message["body"].endswith("Why: it was killed by signal KILL")


# --- the counting


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (FAILED, "it ended with exit status 1"),
        (KILLED, "it was killed by signal KILL"),
        ({"SERVICE_RESULT": "watchdog", "EXIT_STATUS": "ABRT"}, "it hung, and was killed"),
        (
            {"SERVICE_RESULT": "oom-kill", "EXIT_STATUS": "KILL"},
            "it took more memory than it may have, and was killed",
        ),
        ({"SERVICE_RESULT": "protocol"}, "it ended: protocol"),
    ],
)
def test_what_is_told_of_an_end_without_last_words(
    house: House, said: dict[str, str], why: str
) -> None:
    config = house.config()
    for _ in range(3):
        note_end(config, said)
    (message,) = house.told()
    assert message["data"]["reason"] == why


def test_what_the_daemon_said_last_is_told_once(house: House) -> None:
    config = house.config()
    note_end(config, FAILED)
    note_end(config, FAILED)
    last_words.keep_error(CommandError("the disk at /x is full\nand so is /y"), known=True)
    note_end(config, FAILED)
    assert house.told()[0]["data"]["reason"] == "the disk at /x is full (and 1 more)"
    assert last_words.take_error() is None
    last_words.keep_error(ValueError("no answer of https://u:s3cr3t@host/s3cr3t?a"), known=False)
    assert last_words.take_error() == (
        "fault of the program: ValueError: no answer of https://host/…"
    )


def test_it_is_told_again_each_hour(house: House) -> None:
    config = house.config()
    for _ in range(3):
        note_end(config, FAILED)
    for _ in range(6):
        house.later(590)
        note_end(config, FAILED)
    assert len(house.told()) == 1
    house.later(100)
    note_end(config, FAILED)
    assert [message["title"] for message in house.told()] == [
        "URGENT: Lead One does not run",
        "URGENT: Still: Lead One does not run",
    ]
    first, second = house.told()
    assert first["thread"] == second["thread"]
    assert first["key"] != second["key"]


@pytest.mark.parametrize("between", ["stop", "good run", "reboot", "damage"])
def test_what_begins_the_count_anew(house: House, between: str) -> None:
    config = house.config()
    note_end(config, FAILED)
    note_end(config, FAILED)
    match between:
        case "stop":
            note_end(config, STOPPED)
        case "good run":
            house.later(601)
        case "reboot":
            content = house.counted() | {"boot": "another"}
            (house.runtime / "start-failures.json").write_text(json.dumps(content))
        case "damage":
            (house.runtime / "start-failures.json").write_text('{"boot": ')
    note_end(config, FAILED)
    note_end(config, FAILED)
    assert house.told() == []
    assert house.counted()["count"] == 2
    note_end(config, FAILED)
    assert len(house.told()) == 1


def test_a_channel_that_fails_is_tried_again_after_a_minute(house: House) -> None:
    config = house.config(contacts=[house.contact("anna"), house.contact("boris")])
    (house.folder / "deaf-boris").touch()
    for _ in range(4):
        note_end(config, FAILED)
    assert (len(house.told()), len(house.told("boris"))) == (1, 0)
    (house.folder / "deaf-boris").unlink()
    note_end(config, FAILED)
    assert house.told("boris") == []
    house.later(61)
    note_end(config, FAILED)
    assert (len(house.told()), len(house.told("boris"))) == (1, 1)


def test_those_are_told_who_are_told_of_high_priority(house: House) -> None:
    names = ("anna", "boris", "clara")
    steps = [{"contacts": ["anna"]}, {"after": "10m", "contacts": ["boris"]}]
    config = house.config(
        contacts=[house.contact(name) for name in names],
        escalation={"high": {"steps": steps}, "low": {"steps": [{"contacts": ["clara"]}]}},
    )
    for _ in range(3):
        note_end(config, FAILED)
    assert [len(house.told(name)) for name in names] == [1, 1, 0]


def test_a_disk_that_takes_nothing_is_not_needed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/nowhere/at/all")
    config = house.config()
    for _ in range(3):
        note_end(config, FAILED)
    assert len(house.told()) == 1


def test_after_a_reboot_the_last_good_configuration_is_still_known(
    house: House, tmp_path: Path
) -> None:
    last_words.keep_configuration(house.config())
    (house.runtime / "last-good.yaml").unlink()
    broken = tmp_path / "broken.yaml"
    broken.write_text("alarms: [")
    for _ in range(3):
        note_end(broken, FAILED)
    assert len(house.told()) == 1


def test_where_nobody_can_be_told_the_log_says_so(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            note_end(tmp_path / "none.yaml", FAILED)
    assert logs[-1] == {
        "event": "start_failure_not_told",
        "reason": "no configuration says who is to be told",
        "log_level": "error",
    }
    with capture_logs() as logs:
        note_end(house.config(contacts=[]), FAILED)
    assert logs[-1]["reason"] == "alarms.contacts is empty"
    for name in house.environment:
        monkeypatch.delenv(name)
    with capture_logs() as logs:
        note_end(house.config(), FAILED)
    assert [log["event"] for log in logs] == ["start_failures_not_counted", "start_failed"]


def test_what_is_unchanged_is_not_written_again(house: House) -> None:
    config = house.config()
    last_words.keep_configuration(config)
    before = (house.state / "last-good.yaml").stat()
    time.sleep(0.02)
    last_words.keep_configuration(config)
    assert (house.state / "last-good.yaml").stat().st_mtime_ns == before.st_mtime_ns
    assert [file.name for file in house.state.iterdir()] == ["last-good.yaml"]
