"""``leadone doctor`` and ``devices``: whether anybody is watched, whatever ails the daemon."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from bluez.ecg import synthetic
from control_clients import daemon_says, said, stream
from notify_servers import free_port
from program import Leadone, Program, simulator, write_config
from storage_samples import window
from watching import ramp, write_csv

from ingest.chunk import Chunk, Stream
from monitor.cli import in_time
from monitor.cli.daemon_client import START, status_of
from monitor.storage.database import describe, parse_url
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Record
from monitor.storage.writer import Writer

if TYPE_CHECKING:
    from mosquitto import Mosquitto
    from postgres import Postgres

pytest_plugins = ["in_process", "mosquitto", "postgres"]

S = 1_000_000_000
ALARM = "aaaa1111-0000-4000-8000-000000000001"


def url_of(path: Path) -> str:
    return f"sqlite:///{path.parent}/leadone.db"


def store(path: Path, *records: Record) -> None:
    upgrade(url_of(path))
    writer = Writer(url_of(path))
    writer.start()
    writer.submit(*records).result()
    writer.stop()


def texts(rows: list[dict[str, Any]], about: str) -> list[tuple[bool | None, str]]:
    return [(row["well"], row["text"]) for row in rows if row["about"] == about]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_config(tmp_path, [simulator("anna"), simulator("boris")])


# --- the program as a process


def test_a_daemon_that_runs_is_stopped_and_is_killed(leadone: Leadone, path: Path) -> None:
    with Program("run", "-c", path, folder=path.parent) as daemon:
        daemon.until_logged("ready")
        pid = daemon.process.pid
        done = leadone("doctor", "-c", path, "--json")
        # Before the first window nobody has seen a heart.
        assert done.code == 1
        assert done.rows[0]["about"] == "verdict"
        assert done.rows[0]["text"].startswith("NOBODY IS WATCHED: leadone is running, but reads")
        daemon.until(lambda: all(p["watched"] for p in status_of(url_of(path))["patients"]))
        done = leadone("doctor", "-c", path)
        assert (done.code, done.err) == (0, "")
        first, *lines = done.out.splitlines()
        assert first == "leadone is running and watches anna and boris"
        assert f"runs as process {pid} since " in done.out
        # What is for the reader to say comes before what is well.
        marks = [line.split()[0] for line in lines]
        assert marks == sorted(marks)
        rows = leadone("devices", "-c", path, "--json").rows
        assert [(r["device"], r["running"], r["streaming"]) for r in rows] == [
            ("sim", True, True)
        ] * 2

        second = leadone("run", "-c", path)
        assert second.code == 1
        assert f"(pid {pid})" in second.complaint

        daemon.process.send_signal(signal.SIGSTOP)
        try:
            hangs = leadone("doctor", "-c", path)
            devices = leadone("devices", "-c", path)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert hangs.code == 1
        text = f"NOBODY IS WATCHED: leadone is running (pid {pid}) but does not answer: "
        assert hangs.out.startswith(text)
        assert hangs.out.splitlines()[1].startswith("WRONG leadone: ")
        assert devices.out.startswith(f"leadone is running (pid {pid}) but does not answer: ")
        daemon.until(lambda: bool(status_of(url_of(path))["patients"][0]["watched"]))

        daemon.process.kill()
        daemon.process.wait()
        # At once, though windows were stored a moment ago.
        done = leadone("doctor", "-c", path)
        assert done.code == 1
        dead = "leadone is not running: sudo systemctl start leadone"
        assert done.out.splitlines()[0] == f"NOBODY IS WATCHED: {dead}"
        assert "WRONG patient anna: is not watched; was seen last " in done.out
        assert "ok    patient" not in done.out
        shown = leadone("devices", "-c", path)
        assert shown.out.splitlines()[0] == dead
        assert "streaming" not in shown.out


def damaged(path: Path) -> None:
    for file in path.parent.glob("leadone.db*"):
        with file.open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size))


# --- what it makes of what the daemon says


def not_read(patient: str, why: str) -> dict[str, Any]:
    return {"id": patient, "watched": False, "why": why, "paused_until_ns": None}


def watched(patient: str) -> dict[str, Any]:
    return {"id": patient, "watched": True, "why": None, "paused_until_ns": None}


ERROR = "sqlite:///x.db: database or disk is full"


@pytest.mark.parametrize(
    ("more", "verdict", "wrong"),
    [
        (
            {"patients": [watched("anna"), not_read("boris", "h10: it sends …: too noisy")]},
            "leadone is running and watches anna, BUT READS NOTHING OF boris",
            ["patient boris: nothing is read: h10: it sends …: too noisy"],
        ),
        (
            {"patients": [not_read("anna", "no device"), not_read("boris", "no device")]},
            "NOBODY IS WATCHED: leadone is running, but reads nothing of anna and boris",
            [f"patient {name}: nothing is read: no device" for name in ("anna", "boris")],
        ),
        (
            {"database": {"error": ERROR, "spooling": False}},
            f"leadone is running and watches anna and boris; it CANNOT STORE what it sees: {ERROR}",
            [f"storage: leadone cannot store: {ERROR}; hearts are watched all the same, and what"],
        ),
        (
            {"model": "the model failed at the last 3 windows"},
            "leadone is running and watches anna and boris; 1 other thing is wrong",
            ["model in use: the model failed at the last 3 windows"],
        ),
        (
            {
                "stalled": "the analysis has stood still for 40 s",
                "patients": [not_read("anna", "the analysis …")],
            },
            "NOBODY IS WATCHED: leadone is running, but reads nothing of anna",
            [
                "leadone: stands still: the analysis has stood still for 40 s",
                "patient anna: nothing is read: the analysis …",
            ],
        ),
        (
            {
                "channels": [{"name": "me-ntfy", "wrong": "no network\x1b[2J", "delivered_ns": 1}],
                "alarms": [
                    {
                        "id": ALARM,
                        "patient": "gateway",
                        "condition": "channel:me-ntfy",
                        "priority": "medium",
                        "presence": "on",
                        "started_ns": 0,
                        "raised_ns": 0,
                        "ended_ns": None,
                    }
                ],
            },
            "leadone is running and watches anna and boris; 2 other things are wrong",
            ["channel me-ntfy: no network [2J", "alarm: channel:me-ntfy of gateway since 1970"],
        ),
    ],
)
async def test_the_verdict_is_of_what_is_wrong(
    leadone: Leadone, path: Path, more: dict[str, Any], verdict: str, wrong: list[str]
) -> None:
    upgrade(url_of(path))
    says = said(stream("anna", "h10"), stream("boris", "sim"), **more)
    async with daemon_says(url_of(path), says):
        done = await asyncio.to_thread(leadone, "doctor", "-c", path)
    assert (done.code, done.err) == (1, "")
    first, *lines = done.out.splitlines()
    assert first == verdict
    found = [line.removeprefix("WRONG ") for line in lines if line.startswith("WRONG")]
    assert len(found) == len(wrong)
    for line, expected in zip(found, wrong, strict=True):
        assert line.startswith(expected)
    assert lines[: len(found)] == [f"WRONG {line}" for line in found]


async def test_who_may_not_ask_is_told_so_and_not_that_all_is_well(
    leadone: Leadone, path: Path
) -> None:
    upgrade(url_of(path))
    async with daemon_says(url_of(path), {"error": "only root may ask that: use sudo"}):
        done = await asyncio.to_thread(leadone, "doctor", "-c", path)
        devices = await asyncio.to_thread(leadone, "devices", "-c", path)
    says = f"leadone is running (pid {os.getpid()}): only root may ask that: use sudo"
    assert done.code == 1
    assert done.out.splitlines()[:2] == [says, f"WRONG leadone: {says}"]
    assert "patient" not in done.out
    assert devices.out.splitlines()[0] == says
    assert "streaming" not in devices.out
    assert "watched" not in devices.out


async def test_a_database_that_cannot_be_read_is_wrong_beside_a_daemon_that_watches(
    leadone: Leadone, path: Path
) -> None:
    upgrade(url_of(path))
    damaged(path)
    says = said(stream("anna", "h10", battery=70), stream("boris", "sim", sending=False))
    async with daemon_says(url_of(path), says):
        done = await asyncio.to_thread(leadone, "doctor", "-c", path)
        devices = await asyncio.to_thread(leadone, "devices", "-c", path, "--json")
    assert done.code == 1
    assert done.out.startswith("leadone is running and watches anna and boris; 1 other thing is")
    assert "WRONG database: " in done.out
    assert [(r["device"], r["streaming"], r["battery"]) for r in devices.rows] == [
        ("sim", False, None),
        ("sim", False, None),
        ("h10", True, 70),
    ]


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a database that takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/x?connect_timeout=600"


async def test_a_database_that_gives_no_answer_hides_nothing(silent: str, tmp_path: Path) -> None:
    contacts = [{"name": "anna", "channels": [{"type": "command", "command": ["true"]}]}]
    sources = [simulator("anna"), simulator("boris")]
    path = write_config(tmp_path, sources, database=silent, alarms={"contacts": contacts})
    says = said(stream("anna", "h10", battery=70), stream("boris", "sim"))
    async with daemon_says(silent, says):
        with (
            Program("doctor", "-c", path, folder=tmp_path) as doctor,
            Program("devices", "-c", path, folder=tmp_path) as devices,
        ):
            # Processes that a thread keeps from ending would not.
            done = await asyncio.to_thread(doctor.end, None, 40)
            listed = await asyncio.to_thread(devices.end, None, 40)
    shown = describe(parse_url(silent))
    assert (done.code, done.err) == (1, "")
    first, second, *others = done.out.splitlines()
    assert first.startswith("leadone is running and watches anna and boris; 1 other thing is wrong")
    wrong = f"{shown}: the database gives no answer within 5 s"
    assert second == f"WRONG database: {wrong}"
    assert "ok    patient anna: is being watched" in others
    assert any(line.startswith("note  warning: if leadone dies nobody is told") for line in others)
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.splitlines()[0] == wrong
    assert "h10" in listed.out
    with Program("devices", "-c", path, folder=tmp_path) as devices:
        alone = await asyncio.to_thread(devices.end, None, 40)
    assert alone.code == 1
    assert alone.err == f"leadone: leadone is not running: {START}\nleadone: {wrong}\n"


def test_what_was_read_before_a_table_was_locked_is_told(
    leadone: Leadone, tmp_path: Path, postgres: "Postgres", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_time, "WITHIN_S", 2.0)
    url = postgres.new_database()
    upgrade(url)
    path = write_config(tmp_path, [simulator("anna")], database=url.replace(":", "+psycopg:", 1))
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE refused_messages IN ACCESS EXCLUSIVE MODE")
        done = leadone("doctor", "-c", path, "--json")
    assert done.code == 1
    assert len(texts(done.rows, "patient anna")) == 1
    ((well, text),) = texts(done.rows, "database")
    assert well is False
    assert text.endswith("the database gives no answer within 2 s")
    assert texts(leadone("doctor", "-c", path, "--json").rows, "database")[0][0] is True


# --- clocks, and what was stored


async def test_windows_of_a_clock_that_was_ahead_certify_nobody(
    leadone: Leadone, tmp_path: Path
) -> None:
    path = write_config(
        tmp_path, [], patients=[{"id": "anna"}], mqtt={"url": f"mqtt://127.0.0.1:{free_port()}"}
    )
    now = time.time_ns()
    patch, ahead_ns = Stream("anna", "patch"), 347 * 86_400 * S
    chunk, result = ramp(0, 10, stream=patch), window(0, stream=patch)

    def at(ns: int) -> tuple[Chunk, Any]:
        return replace(chunk, start_ns=ns), replace(result, start_ns=ns, duration_s=10.0)

    store(path, *at(now - 7200 * S), *at(now + ahead_ns))
    with History(url_of(path)) as history:
        assert history.last_window_end(patch) == now + ahead_ns + 10 * S
        until_ns = now + 60 * S
        assert history.last_window_end(patch, until_ns=until_ns) == now - 7190 * S
        assert history.last_sample(patch, until_ns=until_ns) == now - 7190 * S
    done = leadone("doctor", "-c", path, "--json")
    assert texts(done.rows, "patient anna") == [
        (False, "is not watched; was seen last 2 h 00 min ago")
    ]
    # A device of the broker is told of, with when it really sent last.
    (row,) = leadone("devices", "-c", path, "--json").rows
    assert (row["device"], row["model"], row["running"]) == ("patch", "MQTT", False)
    assert row["last_sample"] < "2027"
    off_skin = "it sends, but it could not be read lately: the electrodes are off the skin"
    says = said(
        stream("anna", "patch", why=off_skin, battery=55),
        stream("anna", "new"),
        patients=[not_read("anna", f"patch: {off_skin}")],
    )
    async with daemon_says(url_of(path), says):
        rows = (await asyncio.to_thread(leadone, "devices", "-c", path, "--json")).rows
        shown = await asyncio.to_thread(leadone, "devices", "-c", path)
        doctor = await asyncio.to_thread(leadone, "doctor", "-c", path, "--json")
    assert [(r["device"], r["model"], r["streaming"], r["battery"]) for r in rows] == [
        ("patch", "MQTT", True, 55),
        ("new", "MQTT", True, None),
    ]
    assert [r["unread"] for r in rows] == [off_skin, None]
    assert f"anna/patch: not read: {off_skin}" in shown.out
    assert texts(doctor.rows, "patient anna") == [(False, f"nothing is read: patch: {off_skin}")]
    assert json.loads(doctor.out.splitlines()[0])["well"] is False


def test_a_device_over_mqtt(
    leadone: Leadone, tmp_path: Path, mosquitto: "Callable[[Path], Mosquitto]"
) -> None:
    broker = mosquitto(tmp_path / "broker")
    path = write_config(tmp_path, [], patients=[{"id": "anna"}], mqtt={"url": broker.url})
    record = write_csv(tmp_path / "rest.csv", synthetic(60.0))
    with Program("run", "-c", path, folder=tmp_path) as daemon:
        daemon.until_logged("ready")
        sending = ["publish", record, "--url", broker.url, "--patient", "anna", "--device", "patch"]
        with Program(*sending, folder=tmp_path) as device:
            daemon.until(lambda: status_of(url_of(path))["patients"][0]["watched"])
            (row,) = leadone("devices", "-c", path, "--json").rows
            assert (row["device"], row["model"], row["streaming"]) == ("patch", "MQTT", True)
            done = leadone("doctor", "-c", path)
            assert done.out.startswith("leadone is running and watches anna\n")
            device.process.kill()
