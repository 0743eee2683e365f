"""``leadone alarms test``: a message to everybody who is told of alarms, by each of their ways."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from alerts.channels.channel import Message
from alerts.conditions import Priority
from alerts.strip import SECONDS, strip_png
from alerts.wording import trial
from ingest.episodes import Episode, EpisodeKind, Script
from ingest.simulator import simulate
from monitor.cli.errors import CommandError
from monitor.cli.rows import print_row
from monitor.config import load_config
from monitor.contacts import build_channels
from monitor.outbox import send
from monitor.proofs import proof
from monitor.storage.database import DatabaseError
from monitor.storage.writer import Writer

if TYPE_CHECKING:
    from alerts.channels.channel import Channel

# The messages have gone out; nobody waits long for a note of it.
_STORE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of the message on one channel; ``error`` None if it was delivered."""

    contact: str
    channel: str
    seconds: float
    error: str | None


def try_channels(path: Path, contact: str | None, *, json_lines: bool) -> int:
    """Send a test message by every channel of every contact, or of one; 1 if any failed, else 0.

    What was delivered goes on record, see ``monitor.cli.care_findings``.

    Raises:
        CommandError: there are no contacts, or none of this name.
        ConfigError: a channel cannot be used.
    """
    config = load_config(path)
    channels: Mapping[str, Sequence[Channel]] = build_channels(config)
    if not channels:
        raise CommandError(f"{path}: nobody is told of alarms: alarms.contacts is empty")
    if contact is not None:
        if contact not in channels:
            raise CommandError(
                f"--contact: {path} has no contact {contact!r}; it has {', '.join(channels)}"
            )
        channels = {contact: channels[contact]}
    outcomes = asyncio.run(_send_all(channels, json_lines=json_lines))
    delivered = [outcome.channel for outcome in outcomes if outcome.error is None]
    if delivered:
        _keep(config.database.get_secret_value(), delivered)
    return int(len(delivered) < len(outcomes))


def _keep(database: str, channels: Sequence[str]) -> None:
    """Keep that channels have delivered, where the database can be written."""
    try:
        writer = Writer(database)
        writer.start()
        stored = writer.submit(*(proof(channel, "alarms test") for channel in channels))
        writer.stop(_STORE_S)
        stored.result(0)
    except (DatabaseError, TimeoutError) as error:
        why = str(error) or "the database is busy"
        sys.stderr.write(f"leadone: not on record that these channels work: {why}\n")


async def _send_all(
    channels: Mapping[str, Sequence["Channel"]], *, json_lines: bool
) -> list[_Outcome]:
    picture = await asyncio.to_thread(_picture)
    sending = [
        _send(contact, channel, picture) for contact, some in channels.items() for channel in some
    ]
    outcomes = []
    for done in asyncio.as_completed(sending):
        outcome = await done
        outcomes.append(outcome)
        _print(outcome, json_lines=json_lines)
    return outcomes


async def _send(contact: str, channel: "Channel", picture: bytes) -> _Outcome:
    text = trial(channel.name, time.time_ns())
    key = f"test:{uuid4()}"
    message = Message(
        key=key,
        thread=key,
        # It is no alarm, and must not wake a house.
        priority=Priority.LOW,
        title=text.title,
        body=text.body,
        data={"kind": "test"},
        picture=picture,
    )
    begun_s = time.monotonic()
    error = await send(channel, message)
    seconds = time.monotonic() - begun_s
    return _Outcome(contact, channel.name, seconds, None if error is None else str(error))


def _picture() -> bytes:
    """A strip as alarms have one, of a heart that is nobody's."""
    heart = simulate(Script((Episode(EpisodeKind.SINUS_RHYTHM, SECONDS),)), seed=1)
    return strip_png(
        heart.microvolts,
        heart.rate,
        heart.truth.r_peaks_s.tolist(),
        ("Test: simulated, nobody's heart",),
    )


def _print(outcome: _Outcome, *, json_lines: bool) -> None:
    if json_lines:
        print_row(
            {
                "contact": outcome.contact,
                "channel": outcome.channel,
                "delivered": outcome.error is None,
                "seconds": round(outcome.seconds, 3),
                "error": outcome.error,
            }
        )
        return
    # The errors of channels begin with their names.
    why = (outcome.error or "").removeprefix(f"{outcome.channel}: ")
    became = f"failed: {why}" if outcome.error else f"delivered in {outcome.seconds:.1f} s"
    sys.stdout.write(f"{outcome.contact}, {outcome.channel}: {became}\n")
    sys.stdout.flush()
