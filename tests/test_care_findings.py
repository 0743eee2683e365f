"""What an installation that works is warned of: nobody would miss it, no proof, open secrets."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Leadone, Program, simulator, write_config

from alerts.conditions import Alarm, Change, Priority, State
from alerts.escalation import Plan
from alerts.signals import Signals
from alerts.technical import Moment
from monitor.cli.care_findings import readable_secrets, unwatched
from monitor.config import load_config
from monitor.config.alarms import HeartbeatConfig
from monitor.heartbeat import Heartbeat
from monitor.proofs import proof
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Delivery, Patient, Record
from monitor.storage.writer import Writer

pytest_plugins = ["in_process", "postgres"]

# Apprise's e-mail imports it for an encryption that is not used.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

DAY_NS = 86_400 * 10**9
SECRET = "ntfy://s3cr3t-t0ken"
CONTACTS = [{"name": "anna", "channels": [{"type": "command", "command": ["true"]}]}]
HEARTBEAT = {"timezone": "Europe/Berlin", "contacts": ["anna"]}
DEAD_MAN = {"url": "https://hc.example/1"}


def config_at(folder: Path, alarms: dict[str, Any] | None = None, **more: Any) -> Path:
    some = {"contacts": CONTACTS} if alarms is None else alarms
    path = write_config(folder, [simulator()], alarms=some, **more)
    path.chmod(0o640)
    return path


def store(path: Path, *records: Record) -> None:
    url = f"sqlite:///{path.parent}/leadone.db"
    upgrade(url)
    writer = Writer(url)
    writer.start()
    writer.submit(*records).result()
    writer.stop()


# --- nobody watches the watcher


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ({"alarms": {"contacts": CONTACTS}}, True),
        ({"alarms": {"contacts": CONTACTS, "heartbeat": HEARTBEAT}}, False),
        ({"alarms": {"contacts": CONTACTS, "dead_man": DEAD_MAN}}, False),
        ({"alarms": {"contacts": CONTACTS}, "mqtt": {"url": "mqtt://broker"}}, False),
        # Where nobody is told of anything, that is what doctor says.
        ({"alarms": {}}, False),
    ],
)
def test_somebody_must_miss_it_when_it_is_gone(
    leadone: Leadone, tmp_path: Path, more: dict[str, Any], warned: bool
) -> None:
    path = config_at(tmp_path, **more)
    expected = (
        "if leadone dies nobody is told: configure alarms.dead_man, alarms.heartbeat or mqtt "
        "(docs/alarms.md)"
    )
    assert [*unwatched(load_config(path))] == ([expected] if warned else [])
    done = leadone("config", "check", "-c", path)
    assert (done.code, done.err) == (0, "")
    assert (f"{path}: warning: {expected}" in done.out.splitlines()) is warned
    if "mqtt" in more:
        return  # doctor tries that broker
    store(path, Patient("anna"))
    rows = leadone("doctor", "-c", path, "--json").rows
    told = {"about": "warning", "well": None, "text": expected}
    assert (told in rows) is warned


# --- channels without proof


def notified(channel: str, state: str, at_ns: int) -> list[Record]:
    """An alarm of then, and what became of its message on a channel."""
    id_ = f"aaaa1111-0000-4000-8000-{at_ns % 10**12:012d}"
    alarm = Alarm(id_, "anna", "pause", Priority.HIGH, at_ns, at_ns)
    change = Change(alarm, at_ns, State.ACTIVE, "pause")
    outputs = Signals(lambda _: Plan.telling(["anna"])).change(change, Moment(at_ns, 0))
    return [change, *outputs, Delivery(f"{id_}:raised:1", channel, state, 1, at_ns)]


def unproven(leadone: Leadone, path: Path) -> list[str]:
    done = leadone("config", "check", "-c", path)
    assert done.code == 0
    return [line for line in done.out.splitlines() if "delivered nothing" in line]


def test_a_channel_that_has_delivered_nothing_for_a_month(leadone: Leadone, tmp_path: Path) -> None:
    path = config_at(tmp_path)
    expected = (
        f"{path}: warning: anna-command has delivered nothing for 30 days, so nobody knows whether "
        "it works: leadone alarms test --contact anna"
    )
    now_ns = time.time_ns()
    # Nothing can be said without a database.
    assert unproven(leadone, path) == []
    store(path, *notified("anna-command", "delivered", now_ns - 31 * DAY_NS))
    assert unproven(leadone, path) == [expected]
    store(path, *notified("anna-command", "failed", now_ns - 2 * DAY_NS))
    store(path, *notified("boris-command", "delivered", now_ns - DAY_NS))
    assert unproven(leadone, path) == [expected]
    store(path, *notified("anna-command", "delivered", now_ns - 29 * DAY_NS))
    assert unproven(leadone, path) == []


def test_a_test_message_is_proof(leadone: Leadone, tmp_path: Path) -> None:
    channels = [{"type": "command", "command": [word]} for word in ("true", "false")]
    path = config_at(tmp_path, {"contacts": [{"name": "anna", "channels": channels}]})
    store(path, Patient("anna"))
    assert len(unproven(leadone, path)) == 2
    done = leadone("alarms", "test", "-c", path)
    assert done.code == 1
    assert "not on record" not in done.err
    (line,) = unproven(leadone, path)
    assert "anna-command-2 has delivered nothing" in line
    with History(f"sqlite:///{tmp_path}/leadone.db") as history:
        # It is no request that the daemon has to see to.
        assert history.requests() == []


def test_proof_is_read_from_any_database(database_url: str) -> None:
    upgrade(database_url)
    writer = Writer(database_url)
    writer.start()
    old, new = proof("anna-sound", "me", 1000), proof("anna-sound", "me", 2000)
    delivered = notified("anna-command", "delivered", 3000)
    writer.submit(old, new, proof("boris-sound", "me", 10), Patient("anna"), *delivered).result()
    writer.stop()
    with History(database_url) as history:
        assert history.proven(1000) == {"anna-sound": 2000, "anna-command": 3000}
        assert history.proven(2500) == {"anna-command": 3000}


async def test_the_status_report_is_proof(tmp_path: Path) -> None:
    class Good:
        name = "anna-good"

        async def send(self, message: object) -> None:
            pass

    class Bad(Good):
        name = "anna-bad"

        async def send(self, message: object) -> None:
            raise OSError

    upgrade(f"sqlite:///{tmp_path}/leadone.db")
    delivered: list[str] = []
    # The second before it is due.
    begun_ns, begun_s = 1_795_334_399 * 10**9, time.monotonic()
    with History(f"sqlite:///{tmp_path}/leadone.db") as history:
        heartbeat = Heartbeat(
            HeartbeatConfig.model_validate({**HEARTBEAT, "timezone": "UTC", "at": "08:00"}),
            {"anna": None},
            {"anna": [Good(), Bad()]},
            history,
            on_channel=lambda *_: None,
            on_delivered=delivered.append,
            now_ns=lambda: begun_ns + round((time.monotonic() - begun_s) * 1e9),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(heartbeat.run(stop))
        async with asyncio.timeout(20):
            while not delivered:  # noqa: ASYNC110 - nobody else tells of it
                await asyncio.sleep(0.05)
        stop.set()
        await running
    assert delivered == ["anna-good"]


# --- secrets that others can read


def with_secrets(folder: Path) -> Path:
    (folder / "password").write_text("s3cr3t-t0ken")
    (folder / "password").chmod(0o644)
    webhook = {"type": "webhook", "url": "https://house.example"}
    channels = [
        {"type": "apprise", "url": f"{SECRET}@host/topic"},
        webhook | {"secret": {"env": "LEADONE_WEBHOOK"}},
        webhook | {"secret": {"file": str(folder / "password")}},
    ]
    broker = {"url": "mqtt://broker", "username": "me", "password": "s3cr3t-t0ken"}
    contacts = [{"name": "anna", "channels": channels}]
    return config_at(folder, {"contacts": contacts}, mqtt=broker)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter; those of pytest none may."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_secrets_that_everybody_can_read(
    leadone: Leadone, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADONE_WEBHOOK", "s3cr3t-t0ken")
    path = with_secrets(open_folder)
    password = open_folder / "password"
    of_file = (
        f"{password}: every user of this machine can read it (mode 0644), and it holds "
        f"alarms.contacts[0].channels[2].secret: chmod o= {password}"
    )
    config = load_config(path)
    assert [*readable_secrets(config, path)] == [of_file]
    path.chmod(0o644)
    of_config = (
        f"{path}: every user of this machine can read it (mode 0644), and it holds mqtt.password, "
        f"alarms.contacts[0].channels[0].url: chmod o= {path}"
    )
    assert [*readable_secrets(config, path)] == [of_config, of_file]
    done = leadone("config", "check", "-c", path)
    assert done.code == 0
    assert f"{path}: warning: {of_config}" in done.out.splitlines()
    assert "s3cr3t" not in done.out + done.err
    # What nobody else can get at is nobody's.
    open_folder.chmod(0o750)
    assert [*readable_secrets(config, path)] == []


@pytest.mark.parametrize(
    ("database", "secret"),
    [
        ("sqlite:////nowhere/leadone.db", False),
        ("postgresql+psycopg://leadone@host/leadone", False),
        ("postgresql+psycopg://leadone:pass@host/leadone", True),
        ("postgresql+psycopg://host/leadone?password=pass", True),
    ],
)
def test_the_address_of_a_database_is_a_secret_only_with_a_password(
    open_folder: Path, database: str, secret: bool
) -> None:
    path = config_at(open_folder, database=database)
    path.chmod(0o604)
    found = [*readable_secrets(load_config(path), path)]
    assert [", and it holds database: " in line for line in found] == [True] * secret


def test_the_daemon_says_so_when_it_starts(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contacts = [{"name": "anna", "channels": [{"type": "apprise", "url": f"{SECRET}@host/topic"}]}]
    path = config_at(open_folder, {"contacts": contacts}, log={"format": "json"})
    path.chmod(0o644)
    with Program("run", "-c", path, folder=open_folder) as program:
        program.until_logged("secrets_readable")
        program.until_logged("ready")
        done = program.end(signal.SIGTERM)
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if "secrets_readable" in line]
    assert "alarms.contacts[0].channels[0].url" in line
    assert "(mode 0644)" in line
    assert "s3cr3t" not in done.err
