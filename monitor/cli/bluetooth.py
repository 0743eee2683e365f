"""``leadone scan``, ``pair`` and ``unpair``: chest straps."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bleak.exc import BleakError
from dbus_fast.errors import DBusFastError
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ingest.ble.agent import agent, forget
from ingest.ble.device import DEVICES, Device
from ingest.ble.link import Adapter, Stage
from ingest.ble.scan import Sighting, sightings
from ingest.ble.source import BleSource, StrapState
from ingest.ble.trouble import NOT_SEEN, Kind, trouble
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor import logs
from monitor.cli.app import DEFAULT_CONFIG
from monitor.cli.devices import NO_ECG, RESTART, is_fresh
from monitor.cli.errors import CommandError, MisuseError
from monitor.cli.patient import require_patient
from monitor.cli.rows import print_row
from monitor.cli.strip import strip
from monitor.cli.times import seconds, span
from monitor.clock import AHEAD_NS
from monitor.config import ConfigError, load_config
from monitor.config.values import Identifier
from monitor.storage import maintenance
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.pairings import keep
from monitor.storage.places import state_folders
from monitor.storage.records import Patient, Record, Strap, Unpaired
from monitor.storage.records import StrapState as StoredState
from monitor.storage.writer import Writer

_ADDRESS = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}")

# A strap advertises several times a second; a sleeping one wakes up some seconds after it is worn.
_FIND_S = 20.0

# Two searches, connections and bonds, as the link's own time-outs have them.
_PROVE_S = 90.0

_STRIP_S = 10.0
_HEIGHT = 8
_INDENT = "  "

_BARS = "▂▄▆█"
# dBm from which there is one bar more: at -90 links begin to break, over -60 nothing is lost.
_STRENGTHS = (-90, -80, -70, -60)

_Whose = dict[str, tuple[Strap, StoredState | None]]
"""The paired straps by address."""


def scan(
    path: Path | None, adapter: str | None, duration: str, *, everything: bool, json_lines: bool
) -> None:
    """Show the straps within reach.

    Raises:
        MisuseError: ``duration`` is none.
        CommandError: there is no Bluetooth to look with.
    """
    limit_s = seconds(duration, "--for")
    if limit_s <= 0:
        raise MisuseError("--for: must be more than 0")
    whose = {strap.address: (strap, state) for strap, state in _paired(path)}
    seen: dict[str, Sighting] = {}
    with _told():
        asyncio.run(_scan(adapter, limit_s, seen, whose, everything=everything, quiet=json_lines))
    found = [s for s in seen.values() if everything or s.device is not None]
    if json_lines:
        for one in found:
            print_row(_sighting_json(one, whose))
        return
    console = _console()
    if not console.is_terminal:
        console.print(_sightings_table(found, whose))
    if not found:
        console.print(f"No strap seen in {span(limit_s)}: {NOT_SEEN.advice}.")
    for strap, state in whose.values():
        if strap.address not in seen and state is not None and state.stage == Stage.STREAMING:
            console.print(
                f"{strap.address} ({strap.stream.device} of {strap.stream.patient}) is connected "
                "to leadone, and does not advertise meanwhile."
            )


async def _scan(
    adapter: str | None,
    limit_s: float,
    seen: dict[str, Sighting],
    whose: _Whose,
    *,
    everything: bool,
    quiet: bool,
) -> None:
    console = _console()
    live: contextlib.AbstractContextManager[Live | None] = contextlib.nullcontext()
    if console.is_terminal and not quiet:
        live = Live(console=console, refresh_per_second=4)
    with live as shown:
        async with contextlib.aclosing(sightings(adapter, limit_s)) as each:
            async for one in each:
                known = seen.get(one.address)
                seen[one.address] = one if known is None else _joined(known, one)
                if shown is not None:
                    listed = [s for s in seen.values() if everything or s.device is not None]
                    shown.update(_sightings_table(listed, whose))


def _joined(known: Sighting, new: Sighting) -> Sighting:
    """Name and services come in advertisements of their own, and not in each."""
    return Sighting(new.address, new.name or known.name, new.rssi, new.device or known.device)


def pair(path: Path, address: str, patient: str, device: str | None, adapter: str | None) -> None:
    """Pair a strap with a patient, and prove that samples flow.

    Raises:
        MisuseError: the address, or the name for the device, is none.
        ConfigError: the configuration cannot be used.
        CommandError: the patient is not configured, the strap is somebody else's, is not to be
            seen or cannot give samples; the message says what to do.
        DatabaseError: the database cannot be used.
    """
    address = _address(address)
    config = load_config(path)
    require_patient(config, path, patient)
    if device is not None:
        try:
            TypeAdapter(Identifier).validate_python(device)
        except ValidationError as error:
            raise MisuseError(f"--device: {error.errors()[0]['msg']}") from None
    url = config.database.get_secret_value()
    maintenance.upgrade(url)
    with History(url) as history:
        paired = history.straps()
        earlier = _refuse_taken(history, paired, address, patient, device)
    taken = {s.stream for s, _ in paired if s.address != address}
    taken |= {Stream(source.patient, source.device) for source in config.sources}
    if device is not None and Stream(patient, device) in taken:
        raise CommandError(
            f"--device: {patient} has another device {device!r}: choose another name, or unpair it"
        )
    console = _console()
    # What the link has to say is said below, for people.
    logs.configure("error", "human")
    with _told():
        model, device = asyncio.run(
            _prove(console, address, adapter, patient, device or earlier, taken)
        )
    strap = Strap(Stream(patient, device), address, model.kind, adapter, time.time_ns())
    _store(url, *(Patient(p.id, p.name) for p in config.patients if p.id == patient), strap)
    console.print(f"{model.label} {address} is paired: it is {device} of {patient}.")
    console.print(_sentence(RESTART))


def _refuse_taken(
    history: History,
    paired: Iterable[tuple[Strap, StoredState | None]],
    address: str,
    patient: str,
    device: str | None,
) -> str | None:
    """The name that the strap has already; None if it is paired with nobody.

    Raises:
        CommandError: it is paired otherwise, or the daemon listens to it.
    """
    for strap, state in paired:
        if strap.address != address:
            continue
        stream = strap.stream
        if stream.patient != patient or device not in (None, stream.device):
            raise CommandError(
                f"{address} is paired already, as {stream.device} of {stream.patient}: "
                f"leadone unpair {address}"
            )
        last_ns = history.last_sample(stream, until_ns=time.time_ns() + AHEAD_NS)
        if state is not None and state.stage == Stage.STREAMING and is_fresh(last_ns):
            raise CommandError(
                f"{address} is paired already, and leadone is receiving from it; to pair it anew, "
                "stop the service first: sudo systemctl stop leadone"
            )
        return stream.device
    return None


async def _prove(
    console: Console,
    address: str,
    adapter: str | None,
    patient: str,
    device: str | None,
    taken: set[Stream],
) -> tuple[type[Device], str]:
    """Find the strap, connect, bond if it wants that, and draw what it sends.

    Returns:
        Its model, and what it is to be called.
    """
    async with agent(address.__eq__):
        console.print(f"Looking for {address} …")
        model = await _find(address, adapter)
        name = device or _free_name(model, patient, taken)
        console.print(f"Found: {model.label} ({', '.join(model.gives)}).")
        if model.rate is None:
            console.print(f"It {NO_ECG}.", soft_wrap=True)

        def say(state: StrapState) -> None:
            wrong = state.status.trouble
            if state.status.stage is Stage.WAITING and wrong is not None:
                # Pairing again, which is the advice then, is what this does.
                bonding = wrong.kind is Kind.BOND
                told = "it wants to be bonded" if bonding else f"{wrong.cause}: {wrong.advice}"
                console.print(f"{_sentence(told)} …")
            elif state.status.stage is Stage.CONNECTING:
                console.print("Connecting …")
            elif state.status.stage is Stage.STREAMING:
                console.print("Samples flow; ten seconds of them:")
            last.append(state)

        last: list[StrapState] = []
        source = BleSource(Stream(patient, name), address, model, Adapter(adapter), on_state=say)
        try:
            async with asyncio.timeout(_PROVE_S):
                async with contextlib.aclosing(source.chunks()) as chunks:  # type: ignore[type-var]
                    await (
                        _show_rr(console, chunks) if model.rate is None else _draw(console, chunks)
                    )
        except TimeoutError:
            wrong = last[-1].status.trouble if last else None
            raise CommandError(
                f"{address}: no samples: {wrong.cause}: {wrong.advice}"
                if wrong
                else f"{address}: no samples came within {span(_PROVE_S)}: try again"
            ) from None
    return model, name


async def _find(address: str, adapter: str | None) -> type[Device]:
    """Wait until the strap advertises what it is."""
    name: str | None = None
    async with contextlib.aclosing(sightings(adapter, _FIND_S)) as each:
        async for one in each:
            if one.address != address:
                continue
            if one.device is not None:
                return one.device
            name = one.name or name or ""
    if name is None:
        raise CommandError(f"{address}: {NOT_SEEN.cause}: {NOT_SEEN.advice}")
    labels = ", ".join(d.label for d in DEVICES)
    raise CommandError(f"{address} ({name or 'without a name'}) is none of: {labels}")


async def _draw(console: Console, chunks: AsyncIterator[Chunk | RrIntervals]) -> None:
    """Draw the first ten seconds of ECG."""
    runs: list[NDArray[np.float32]] = []
    n = 0
    live: contextlib.AbstractContextManager[Live | None] = contextlib.nullcontext()
    if console.is_terminal:
        live = Live(console=console, refresh_per_second=8)
    width = min(console.width, 120) - len(_INDENT)
    with live as shown:
        async for chunk in chunks:
            if not isinstance(chunk, Chunk):
                continue
            wanted = round(_STRIP_S * chunk.rate)
            runs.append(chunk.microvolts)
            n += len(chunk.microvolts)
            sofar = np.concatenate([*runs, np.full(max(wanted - n, 0), np.nan, np.float32)])
            if shown is not None:
                shown.update(_strip(sofar[:wanted], width))
            if n >= wanted:
                if shown is None:
                    console.print(_strip(sofar[:wanted], width))
                return


def _strip(microvolts: NDArray[np.float32], width: int) -> Text:
    lines = strip(microvolts, width=width, height=_HEIGHT)
    return Text("\n".join(_INDENT + line for line in lines))


async def _show_rr(console: Console, packets: AsyncIterator[Chunk | RrIntervals]) -> None:
    """Print the first ten packets: straps send one a second."""
    shown = 0
    async for packet in packets:
        if not isinstance(packet, RrIntervals):
            continue
        rate = "--" if packet.heart_rate is None else f"{packet.heart_rate}"
        intervals = " ".join(f"{1000 * rr:.0f}" for rr in packet.rr_s)
        console.print(f"{_INDENT}{rate:>3} per minute   RR {intervals or '--'} ms")
        shown += 1
        if shown == round(_STRIP_S):
            return


def _free_name(model: type[Device], patient: str, taken: set[Stream]) -> str:
    """``h10``, or ``h10-2`` if the patient has one."""
    name = model.label.split()[-1].lower()
    names = [name, *(f"{name}-{i}" for i in range(2, len(taken) + 2))]
    return next(n for n in names if Stream(patient, n) not in taken)


def unpair(path: Path, address: str) -> None:
    """Take a strap from its patient and forget its bond; what it recorded stays.

    Raises:
        MisuseError: the address is none.
        CommandError: it is paired with nobody.
    """
    address = _address(address)
    url = load_config(path).database.get_secret_value()
    with History(url) as history:
        strap = next((s for s, _ in history.straps() if s.address == address), None)
    if strap is None:
        raise CommandError(f"{address} is paired with nobody; leadone devices lists those that are")
    _store(url, Unpaired(address))
    stream = strap.stream
    console = _console()
    console.print(
        f"{address} is no longer {stream.device} of {stream.patient}; its recordings stay."
    )
    try:
        if asyncio.run(forget(address)):
            console.print("Its bond with this gateway is forgotten.")
    except (OSError, EOFError, DBusFastError):
        console.print("There is no Bluetooth service here to forget a bond.")
    console.print(_sentence(RESTART))


def _paired(path: Path | None) -> list[tuple[Strap, StoredState | None]]:
    """The straps of a database; none where it cannot be read, for one may look around first."""
    try:
        config = load_config(path or DEFAULT_CONFIG)
        with History(config.database.get_secret_value()) as history:
            return history.straps()
    except ConfigError:
        if path is not None:
            raise
    except DatabaseError:
        pass
    return []


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raise what Bluetooth and D-Bus raise as one line that says what to do."""
    try:
        yield
    except BleakError as error:
        wrong = trouble(error, "bluetooth")
        raise CommandError(f"{wrong.cause}: {wrong.advice}") from error
    except (OSError, EOFError, DBusFastError) as error:
        raise CommandError(
            "the Bluetooth service does not answer: install it (apt install bluez) or start it "
            f"(sudo systemctl start bluetooth): {str(error) or type(error).__name__}"
        ) from error


def _store(url: str, *records: Record) -> None:
    """Write with a writer of one's own, as the daemon may be running or not."""
    writer = Writer(url)
    writer.start()
    try:
        writer.submit(*records).result()
    finally:
        writer.stop()
    # Beside the database too, in case that is lost before the daemon has seen it.
    with History(url) as history:
        keep(state_folders(url), url, [strap for strap, _ in history.straps()])


def _address(text: str) -> str:
    address = text.strip().upper().replace("-", ":")
    if not _ADDRESS.fullmatch(address):
        raise MisuseError(f"{text!r} is no Bluetooth address; expected e.g. A0:9E:1A:12:34:56")
    return address


def _sightings_table(found: Iterable[Sighting], whose: _Whose) -> Table:
    table = Table()
    for name in ("address", "name", "signal", "what it can give", "paired with"):
        table.add_column(name, no_wrap=name in ("address", "signal"), overflow="fold")
    for one in sorted(found, key=lambda s: (s.device is None, s.address)):
        strap = whose.get(one.address, (None, None))[0]
        gives = "" if one.device is None else ", ".join(one.device.gives)
        paired = "" if strap is None else f"{strap.stream.patient} ({strap.stream.device})"
        table.add_row(one.address, Text(one.name), _signal(one.rssi), gives, paired)
    return table


def _signal(dbm: int) -> str:
    bars = sum(dbm >= strength for strength in _STRENGTHS)
    return f"{_BARS[:bars]:<{len(_BARS)}} {dbm} dBm"


def _sighting_json(one: Sighting, whose: _Whose) -> dict[str, Any]:
    strap = whose.get(one.address, (None, None))[0]
    return {
        "address": one.address,
        "name": one.name,
        "rssi_dbm": one.rssi,
        "model": None if one.device is None else one.device.kind,
        "gives": [] if one.device is None else list(one.device.gives),
        "patient": None if strap is None else strap.stream.patient,
        "device": None if strap is None else strap.stream.device,
    }


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _console() -> Console:
    return Console(markup=False, highlight=False)
