"""``leadone scan``, ``pair``, ``devices`` and ``unpair`` over the virtual BlueZ."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bluez.bus import PrivateBus
from bluez.clock import Clock, RealClock
from bluez.ecg import synthetic
from bluez.h10 import H10
from bluez.movesense import Movesense
from bluez.peripheral import Peripheral
from bluez.service import Bluez
from bluez.strap import Strap as HeartRateStrap
from control_clients import daemon_says, said
from control_clients import stream as heard
from program import Done, Program, write_config

from ingest.chunk import Chunk, Stream
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Record, Strap, StrapState
from monitor.storage.writer import Writer
from monitor.window import Gap

pytest_plugins = ["bluez.fixtures"]

S = 1_000_000_000
H10_ADDRESS = "A0:9E:1A:00:00:01"
BARE: dict[str, Any] = {"patients": [{"id": "anna"}, {"id": "boris"}]}


@pytest.fixture
def clock() -> Clock:
    return RealClock(speed=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_config(tmp_path, [], **BARE)


async def leadone(path: Path, *args: object) -> Done:
    """Run a command with this configuration, as a process, while the virtual BlueZ goes on."""
    with Program(*args, "-c", path, folder=path.parent) as program:
        return await asyncio.to_thread(program.end)


def url_of(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["database"])


def straps(path: Path) -> list[tuple[Strap, StrapState | None]]:
    with History(url_of(path)) as history:
        return history.straps()


def store(path: Path, *records: Record) -> None:
    upgrade(url_of(path))
    writer = Writer(url_of(path))
    writer.start()
    writer.submit(*records).result()
    writer.stop()


def strap(device: str = "h10", patient: str = "anna", address: str = H10_ADDRESS) -> Strap:
    return Strap(Stream(patient, device), address, "polar_h10", None, 1_790_000_000 * S)


# --- scan


async def test_scan_tells_what_each_strap_can_give_and_whose_it_is(
    bluez: Bluez, path: Path
) -> None:
    bluez.add(H10(synthetic(), rssi=-55))
    bluez.add(Movesense(synthetic(), rssi=-85))
    bluez.add(HeartRateStrap())
    bluez.add(Peripheral("Toothbrush", "D0:00:00:00:00:01"))
    store(path, strap())
    done = await leadone(path, "scan", "--for", "1s", "--json")
    assert (done.code, done.err) == (0, "")
    found = {row["model"]: row for row in done.rows}
    assert set(found) == {"polar_h10", "movesense", "heart_rate"}
    h10 = found["polar_h10"]
    assert h10["address"] == H10_ADDRESS
    assert h10["rssi_dbm"] in (-55, -54)
    assert (h10["patient"], h10["device"]) == ("anna", "h10")
    assert any("ECG" in what for what in h10["gives"])
    assert found["heart_rate"]["patient"] is None
    assert not any("ECG" in what for what in found["heart_rate"]["gives"])

    table = await leadone(path, "scan", "--for", "1s", "--all")
    (line,) = [line for line in table.out.splitlines() if H10_ADDRESS in line]
    assert "▂▄▆█" in line
    assert "anna" in line
    assert "Toothbrush" in table.out
    assert "▂▄▆█" not in next(line for line in table.out.splitlines() if "Movesense" in line)


async def test_scan_without_a_configuration_or_a_strap(bluez: Bluez, tmp_path: Path) -> None:
    with Program("scan", "--for", "0.5s", folder=tmp_path) as program:
        done = await asyncio.to_thread(program.end)
    assert (done.code, done.err) == (0, "")
    assert "No strap seen" in done.out
    assert "worn" in done.out


async def test_scan_on_an_adapter_that_is_off_or_not_there(bluez: Bluez, path: Path) -> None:
    bluez.power("hci0", False)
    off = await leadone(path, "scan", "--for", "1s")
    assert off.code == 1
    assert "bluetoothctl power on" in off.complaint
    absent = await leadone(path, "scan", "--for", "1s", "--adapter", "hci7")
    assert absent.code == 1
    assert "adapter" in absent.complaint


@pytest.mark.parametrize(
    "args", [("scan", "--for", "1s"), ("pair", H10_ADDRESS, "--patient", "anna")]
)
async def test_without_a_bluetooth_service_one_line_says_what_to_do(
    system_bus: PrivateBus, path: Path, args: tuple[str, ...]
) -> None:
    done = await leadone(path, *args)
    assert done.code == 1
    assert "bluetooth" in done.complaint.lower()
    assert "systemctl" in done.complaint


async def test_without_a_d_bus_one_line_says_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path.parent}/nobody")
    for args in (("scan",), ("pair", H10_ADDRESS, "--patient", "anna")):
        done = await leadone(path, *args)
        assert done.code == 1
        assert "systemctl" in done.complaint


# --- pair


async def test_pair_draws_ten_seconds_and_stores_the_strap(bluez: Bluez, path: Path) -> None:
    h10 = bluez.add(H10(synthetic()))
    before = time.time_ns()
    done = await leadone(path, "pair", H10_ADDRESS.lower(), "--patient", "anna")
    assert (done.code, done.err) == (0, "")
    drawn = [line for line in done.out.splitlines() if any("⠀" < c <= "⣿" for c in line)]
    assert len(drawn) >= 4
    # A beat every 0.8 s is a peak that reaches the top lines in as many columns.
    top = next(line for line in done.out.splitlines() if line in drawn)
    assert 5 <= sum(c > "⠀" for c in top if c >= "⠀") <= 30
    assert "systemctl restart leadone" in done.out
    ((stored, state),) = straps(path)
    assert stored.stream == Stream("anna", "h10")
    assert (stored.address, stored.kind, stored.adapter) == (H10_ADDRESS, "polar_h10", None)
    assert before < stored.paired_ns < time.time_ns()
    assert state is None
    assert h10.stops == 1
    assert not h10.connected


async def test_a_strap_that_wants_a_bond_is_bonded_by_our_agent(bluez: Bluez, path: Path) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    done = await leadone(path, "pair", H10_ADDRESS, "--patient", "anna", "--device", "chest")
    assert (done.code, done.err) == (0, "")
    assert h10.bonded
    ((stored, _),) = straps(path)
    assert stored.stream.device == "chest"


async def test_a_strap_without_ecg_shows_its_intervals(bluez: Bluez, path: Path) -> None:
    bluez.add(HeartRateStrap(rr_s=(0.75,)))
    done = await leadone(path, "pair", "C0:00:00:00:00:01", "--patient", "boris")
    assert (done.code, done.err) == (0, "")
    told = [line for line in done.out.splitlines() if "per minute" in line]
    assert len(told) == 10
    assert sum("80 per minute" in line and " 750" in line for line in told) >= 8
    ((stored, _),) = straps(path)
    assert (stored.kind, stored.stream) == ("heart_rate", Stream("boris", "strap"))
    # Whoever buys one must know before they rely on it.
    warning = "sends no ECG: it cannot see ventricular fibrillation"
    assert f"It {warning}" in done.out
    shown = await leadone(path, "devices")
    assert f"boris/strap {warning}" in shown.out
    assert (await leadone(path, "devices", "--json")).rows[0]["ecg"] is False
    findings = (await leadone(path, "doctor", "--json")).rows
    (about,) = [row for row in findings if row["about"] == "strap boris/strap"]
    assert about["well"] is None
    assert about["text"].startswith(warning)


async def test_what_cannot_be_paired(bluez: Bluez, path: Path) -> None:
    store(path, strap(), strap("polar", "boris", "A0:9E:1A:00:00:02"))
    cases: list[tuple[int, str, tuple[str, ...]]] = [
        (2, "no Bluetooth address", ("h10", "--patient", "anna")),
        (1, "no patient 'zoe'; it has anna, boris", (H10_ADDRESS, "--patient", "zoe")),
        (2, "--device: expected 1 to 64", (H10_ADDRESS, "--patient", "anna", "--device", "a b")),
        (1, f"leadone unpair {H10_ADDRESS}", (H10_ADDRESS, "--patient", "boris")),
        (1, "as h10 of anna", (H10_ADDRESS, "--patient", "anna", "--device", "other")),
        (1, "another", ("A0:9E:1A:00:00:09", "--patient", "anna", "--device", "h10")),
    ]
    for code, told, args in cases:
        done = await leadone(path, "pair", *args)
        assert (done.code, told in done.complaint) == (code, True), done.err
    assert len(straps(path)) == 2


async def test_a_strap_that_is_not_to_be_seen(bluez: Bluez, path: Path) -> None:
    code = (
        "import monitor.cli.bluetooth as b; b._FIND_S = 0.5; from monitor.cli import main; main()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "pair", H10_ADDRESS, "--patient", "anna", "-c", path),
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert "strap not seen: check that the strap is worn" in line
    assert straps(path) == []


async def test_a_strap_that_the_daemon_holds_is_not_paired_anew(bluez: Bluez, path: Path) -> None:
    now = time.time_ns()
    store(path, strap())
    store(
        path,
        StrapState(Stream("anna", "h10"), "streaming", None, None, now, 80, now),
        Chunk(Stream("anna", "h10"), now - S, 130.0, synthetic(1)),
    )
    done = await leadone(path, "pair", H10_ADDRESS, "--patient", "anna")
    assert done.code == 1
    assert "leadone is receiving from it" in done.complaint
    scan = await leadone(path, "scan", "--for", "0.5s")
    assert f"{H10_ADDRESS} (h10 of anna) is connected to leadone" in scan.out


# --- devices and unpair


async def test_devices_tell_state_advice_battery_and_drops(tmp_path: Path) -> None:
    source = {"type": "replay", "patient": "boris", "device": "holter", "records": ["x.csv"]}
    path = write_config(tmp_path, [source], patients=[{"id": "anna"}, {"id": "boris"}])
    now = time.time_ns()
    midnight = time.mktime((*time.localtime(now / 1e9)[:3], 0, 0, 0, 0, 0, -1))
    stream, other = Stream("anna", "h10"), Stream("anna", "tickr")
    end = now - 2 * S
    store(path, strap(), strap("tickr", "anna", "C0:00:00:00:00:01"))
    store(
        path,
        StrapState(stream, "streaming", None, None, now - 90 * S, 12, now - 80 * S),
        StrapState(other, "waiting", "strap not seen", "check that it is worn", now, None, None),
        Chunk(stream, end - S, 130.0, synthetic(1, rate=130)),
        # Of today, of yesterday, and of both.
        Gap(stream, end - 30 * S, end - 20 * S, "link lost"),
        Gap(stream, round((midnight - 600) * S), round((midnight - 500) * S), "link lost"),
    )
    today_s = min(10.0, (now / 1e9 - midnight) - 22)
    known = {"adapter": None, "paired_ns": now, "since_ns": now - 90 * S, "battery_ns": None}
    known |= {"model": "polar_h10", "cause": None, "advice": None}
    gone = {"cause": "strap not seen", "advice": "check that it is worn"}
    live = said(
        heard("anna", "h10", kind="strap", battery=12)
        | {"strap": known | {"stage": "streaming", "address": H10_ADDRESS}},
        heard("anna", "tickr", kind="strap", sending=False, sample_ns=None, why="strap not seen")
        | {"strap": known | gone | {"stage": "waiting", "address": "C0:00:00:00:00:01"}},
        heard("boris", "holter", kind="replay", sending=False, sample_ns=None, why="nothing came"),
    )
    async with daemon_says(url_of(path), live):
        done = await leadone(path, "devices", "--json")
        table = (await leadone(path, "devices")).out
    assert (done.code, done.err) == (0, "")
    h10, tickr, holter = done.rows
    assert (h10["device"], h10["model"], h10["stage"]) == ("h10", "polar_h10", "streaming")
    assert (h10["streaming"], h10["battery"], h10["address"]) == (True, 12, H10_ADDRESS)
    if today_s == 10:
        assert h10["missing_today_s"] == 10.0
    assert (tickr["streaming"], tickr["cause"]) == (False, "strap not seen")
    assert tickr["last_sample"] is None
    assert tickr["missing_today_s"] is None
    assert (holter["device"], holter["model"]) == ("holter", "replay")
    assert "address" not in holter

    (line,) = [line for line in table.splitlines() if line.startswith("│ h10 ")]
    assert [cell.strip() for cell in line.split("│")[1:5]] == [
        "h10",
        "anna",
        "Polar H10",
        "streaming",
    ]
    assert "12 %" in line
    assert "anna/tickr: strap not seen: check that it is worn" in table


@pytest.mark.parametrize("ago_s", [2, 301])
async def test_a_daemon_that_died_does_not_look_alive(path: Path, ago_s: int) -> None:
    now = time.time_ns()
    stream = Stream("anna", "h10")
    store(path, strap())
    store(
        path,
        StrapState(stream, "streaming", None, None, now - 900 * S, 80, now),
        Chunk(stream, now - ago_s * S, 130.0, synthetic(1, rate=130)),
    )
    (row,) = (await leadone(path, "devices", "--json")).rows
    assert (row["running"], row["streaming"]) == (False, False)
    if ago_s > 60:
        seconds_today = time.time() - time.mktime((*time.localtime()[:3], 0, 0, 0, 0, 0, -1))
        assert row["missing_today_s"] == pytest.approx(min(300, seconds_today), abs=10)
    table = (await leadone(path, "devices")).out
    assert table.startswith("leadone is not running: sudo systemctl start leadone\n")
    assert "streaming" not in table


async def test_unpair_forgets_the_bond_and_keeps_the_recordings(bluez: Bluez, path: Path) -> None:
    h10 = bluez.add(H10(synthetic(), needs_pairing=True))
    assert (await leadone(path, "pair", H10_ADDRESS, "--patient", "anna")).code == 0
    store(path, Chunk(Stream("anna", "h10"), 1_790_000_000 * S, 130.0, synthetic(1)))
    device = bluez.device(h10)
    assert device is not None
    assert device.paired
    done = await leadone(path, "unpair", H10_ADDRESS)
    assert (done.code, done.err) == (0, "")
    assert "bond with this gateway is forgotten" in done.out
    assert straps(path) == []
    assert bluez.device(h10) is None
    with History(url_of(path)) as history:
        assert len(list(history.segments("anna", 0, 2**62))) == 1
    again = await leadone(path, "unpair", H10_ADDRESS)
    assert again.code == 1
    assert "paired with nobody" in again.complaint


async def test_unpair_needs_no_bluetooth(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path.parent}/nobody")
    store(path, strap())
    done = await leadone(path, "unpair", H10_ADDRESS)
    assert (done.code, done.err) == (0, "")
    assert straps(path) == []
