"""docs/alarms.md is held to the program: its table, its numbers, and every example in it."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from notify_servers import http_server
from typer.main import get_command

from alerts import escalation, gateway, ledger, lethal, policy, priorities, signals, technical
from alerts.channels.apprise import AppriseChannel
from alerts.channels.channel import DeliveryError, Message, document
from alerts.channels.command import CommandChannel
from alerts.channels.webhook import WebhookChannel
from alerts.conditions import Alarm, Priority
from alerts.policy import ClassRule, IrregularPulseRule, PauseRule, RateRule, Rule
from alerts.records import Kind, Notification, Presence, Signal
from alerts.rhythm import LETHAL
from models.bundle import DEFAULT, find_bundle
from monitor import alarms, outbox
from monitor import gateway as gateway_look
from monitor.cli.app import app
from monitor.composing import _data
from monitor.config.model import Config, WindowConfig
from monitor.policies import build_policies

DOCS = (Path(__file__).parents[1] / "docs" / "alarms.md").read_text(encoding="utf-8")
WINDOW = WindowConfig()
MESSAGE = Message("k:1", "k", Priority.HIGH, "URGENT: Karl", "Look.", {"kind": "raised"})


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", DOCS, re.DOTALL | re.MULTILINE)
    return ["\n".join(line[len(i) :] for line in text.splitlines()) + "\n" for i, text in found]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its first two lines."""
    section = DOCS[DOCS.index(f"\n## {heading}\n") :]
    rows = re.search(r"^(\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    return [[c.strip() for c in row.strip("|").split("|")] for row in rows[0].splitlines()[2:]]


def soonest(rule: Rule) -> str:
    """When the k-th window of a condition ends, after the start of the first."""
    return f"{rule.k} of {rule.n} windows, {WINDOW.length + (rule.k - 1) * WINDOW.hop:g} s"


def heart_row(rule: Rule) -> list[str]:
    name, priority = f"`{rule.condition}`", rule.priority.value
    over = f"{rule.clear_k} of {rule.n}"
    match rule:
        case PauseRule():
            assert rule.k == 1
            assert rule.clear_k == rule.n
            raised, over = "while it lasts, or 1 window", f"{rule.n} windows in a row without"
            return [name, f"no beat for {rule.seconds:g} s", priority, raised, over]
        case RateRule():
            beyond, back = ("more", "under") if rule.side == "high" else ("fewer", "over")
            what = f"{rule.limit:g} beats per minute or {beyond}"
            over = f"{over} {back} {rule.off:g}"
            return [name, what, priority, f"{soonest(rule)} at the soonest", over]
        case IrregularPulseRule():
            what = f"irregular pulse, perhaps {rule.name}, from a strap without ECG"
        case ClassRule():
            what = f"the model sees {rule.name}, {rule.threshold:.2f} or more"
    assert isinstance(rule, ClassRule)
    over = f"{over} under {rule.off_threshold:.2f}"
    return [name, what, priority, f"{soonest(rule)} at the soonest", over]


def test_the_table_of_hearts_is_what_the_rules_are() -> None:
    config = Config.model_validate({"patients": [{"id": "grandpa"}]})
    rules = build_policies(config, find_bundle(DEFAULT))("grandpa").rules
    documented = {row[0]: row for row in table("What raises an alarm")}
    assert [documented.get(f"`{rule.condition}`") for rule in rules] == [*map(heart_row, rules)]
    hearts = ("class", "rr", "rate", "pause")
    named = {name for name in documented if name.strip("`").partition(":")[0] in hearts}
    assert named == {f"`{rule.condition}`" for rule in rules}


def test_the_table_of_lethal_rhythms_is_what_they_are() -> None:
    documented = {row[0].strip("`"): row[2:] for row in table("What raises an alarm")}
    over = f"{lethal.ORGANISED_S} s of organised rhythm"
    for condition in LETHAL:
        assert documented[condition] == ["high", "1 verdict", over]
        assert priorities.priority_of(condition) is Priority.HIGH
    unseen = ["medium", f"{lethal.UNSEEN_S} s", f"{lethal.SEEN_S} s with beats"]
    assert documented[lethal.UNSEEN] == unseen
    assert priorities.priority_of(lethal.UNSEEN) is Priority.MEDIUM


def test_the_table_of_devices_and_gateway_is_what_they_are() -> None:
    def patience(kind: str) -> gateway._Patience:
        return gateway._PATIENCE.get(kind, gateway._AT_ONCE)

    raised_over = {
        technical.SILENT: (f"{technical.SILENT_S:g} s", None),
        technical.OFF_SKIN: (f"{technical.OFF_SKIN_S:g} s", None),
        technical.UNREAD: (
            f"{technical.UNREAD_S:g} s",
            f"{technical.READ_SHARE:.0%} of {technical.READ_S:g} s can".replace("%", " %"),
        ),
        technical.BATTERY: ("at once", f"{technical.GOOD_BATTERY} % or more"),
        gateway.BEHIND: (
            f"{patience('behind').wrong_s:g} s",
            f"{patience('behind').right_s:g} s in time",
        ),
        gateway.STALLED: (
            f"{gateway_look._STILL_S + patience('stalled').wrong_s:g} s",
            f"{patience('stalled').right_s:g} s in motion",
        ),
        gateway.DATABASE: (
            f"{patience('database').wrong_s:g} s",
            f"{patience('database').right_s:g} s stored",
        ),
        gateway.CHANNEL: (f"{patience('channel').wrong_s:g} s", None),
        **{
            kind: ("at once", None)
            for kind in (gateway.DISK, gateway.CLOCK, gateway.MODEL, gateway.RHYTHM_MODEL)
            if patience(kind) == gateway._AT_ONCE
        },
    }
    documented = {
        row[0].strip("`").removesuffix(":NAME"): row for row in table("What raises an alarm")
    }
    hearts = {"class:AF", "rr:AF", "rate:high", "rate:low", "pause", *LETHAL, lethal.UNSEEN}
    assert documented.keys() - hearts == raised_over.keys()
    for kind, (raised, over) in raised_over.items():
        _, what, priority, documented_raised, documented_over = documented[kind]
        assert priority == priorities.priority_of(kind).value, kind
        assert documented_raised == raised, kind
        assert over in (None, documented_over), kind
        if kind == technical.UNREAD:
            assert f"less than {technical.UNREAD_SHARE * 100:g} %" in what
        if kind == technical.BATTERY:
            assert f"at {technical.LOW_BATTERY} % or less" in what
        if kind == gateway.MODEL:
            assert f"failed {gateway_look._MODEL_FAILURES} times in a row" in what


def test_every_priority_is_in_the_table() -> None:
    documented = {row[0].strip("`").removesuffix(":NAME") for row in table("What raises an alarm")}
    assert {*priorities.PRIORITIES} <= documented | {"rr"}


def test_every_signal_is_explained() -> None:
    named = [row[0].strip("`") for row in table("From a condition to people")]
    assert named == [presence.value for presence in Presence]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "says",
    [
        f"High priority is repeated every {escalation.HIGH_REPEAT_S / 60:g} minutes and medium",
        f"every {escalation.MEDIUM_REPEAT_S / 60:g} until somebody answers; low is told once.",
        f"comes back within {escalation.BOUT_S / 60:g} minutes of its end",
        f"told every {escalation.GROUP_S / 60:g} minutes at most, with high priority every minute",
        f"lasts {signals.MAX_SILENCE_S / 3600:g} hours at most",
        f"After {alarms.SIGNAL_LOST_S:g} s without a window that can be read",
        f"tried again after {outbox.FIRST_RETRY_S:g} s, {2 * outbox.FIRST_RETRY_S:g} s,",
        f"up to every {outbox.LONGEST_RETRY_S / 60:g} minutes,",
        f"minutes, for {outbox.GIVE_UP_S / 3600:g} hours, in the order of each alarm",
        f"tried again every {outbox.URGENT_RETRY_S:g} s at least",
        f"or a snooze holds for {signals.LETHAL_ANSWER_S / 60:g} minutes while",
        f"Lethal rhythms are repeated every {escalation.LETHAL_REPEAT_S:g} s,",
        f"repeats every {escalation.MIN_LETHAL_REPEAT_S:g} s to 5 min",
        f"a try lasts {outbox.SEND_S:g} s at most",
        f"windows of {WINDOW.length:g} s, one every {WINDOW.hop:g} s",
    ],
)
def test_numbers(says: str) -> None:
    assert says in flat(DOCS)


def test_numbers_that_are_written_as_words() -> None:
    assert ledger.HIGH_GAP_S == 60.0
    assert escalation.Plan().high.latching
    assert not escalation.Plan().medium.latching
    assert escalation.Plan().low.repeat_s is None
    assert policy.PAUSE_S == 4.0


def test_every_configuration_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADONE_WEBHOOK", "s3cret")
    for name in ("anna-ntfy", "neighbour-sms", "dead-man"):
        (tmp_path / name).write_text("ntfys://ntfy.sh/topic")
    found = blocks("yaml")
    assert len(found) == 7
    contacts = [{"name": "anna", "channels": [{"type": "sound"}]}]
    for text in found:
        given = yaml.safe_load(text.replace("/etc/leadone", str(tmp_path)))
        content: dict[str, Any] = {
            "patients": [{"id": "grandpa"}],
            "alarms": {"contacts": contacts},
        }
        Config.model_validate(content | given)


def test_every_command_is_one() -> None:
    lines = [line for text in blocks("sh") for line in text.splitlines() if line[:7] == "leadone"]
    group = get_command(app)
    named = set(re.findall(r"`leadone alarms (\w+)", DOCS))
    for line in lines:
        _, alarms_, *words = shlex.split(line, comments=True)
        command = group.commands[alarms_].commands[words[0]]  # type: ignore[attr-defined]
        # It raises for what it does not know.
        command.make_context(words[0], words[1:], resilient_parsing=False)
        named.add(words[0])
    assert named == set(group.commands["alarms"].commands)  # type: ignore[attr-defined]


async def test_the_check_of_a_signature_checks() -> None:
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    is_genuine = names["is_genuine"]
    with http_server() as server:
        await WebhookChannel("house", server.url, "s3cret").send(MESSAGE)
        old = WebhookChannel("house", server.url, "s3cret", now_s=lambda: 1_795_262_400.0)
        await old.send(MESSAGE)
        now, earlier = server.requests
    assert is_genuine("s3cret", now.headers, now.body)
    assert now.headers["idempotency-key"] == MESSAGE.key
    assert not is_genuine("another", now.headers, now.body)
    assert not is_genuine("s3cret", now.headers, now.body + b" ")
    assert not is_genuine("s3cret", earlier.headers, earlier.body)
    assert not is_genuine("s3cret", {}, now.body)


def test_the_document_of_a_webhook_is_as_shown() -> None:
    (text,) = blocks("json")
    shown = json.loads(text)
    assert [*shown] == [*document(MESSAGE), "picture"]
    some = Alarm("a", "grandpa", "pause", Priority.HIGH, 1, 2)
    told = Signal(
        alarm=some, presence=Presence.ON, since_ns=2, bout="a", bout_count=1, bout_started_ns=2
    )
    notification = Notification(
        key="a:raised:1",
        alarm_id="a",
        patient="grandpa",
        contact="anna",
        kind=Kind.RAISED,
        due_ns=2,
        thread="a",
        expires_with_alarm=True,
    )
    assert [*shown["data"]] == [*_data(notification, told, "why")]


async def test_the_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = (text for text in blocks("sh") if text.startswith("#!"))
    say = tmp_path / "say-alarm"
    speak = tmp_path / "espeak-ng"
    say.write_text(script)
    speak.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/said\n')
    for file in (say, speak):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    channel = CommandChannel("kitchen", [str(say)])
    await channel.send(MESSAGE)
    assert (tmp_path / "said").read_text() == "URGENT: Karl\n"
    speak.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DeliveryError) as failed:
        await channel.send(MESSAGE)
    assert not failed.value.permanent


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_every_url_is_understood() -> None:
    urls = [u for row in table("Channels") for u in re.findall(r"`([^`]+)`", row[1])]
    assert len(urls) == 6
    for url in urls:
        AppriseChannel("docs", url)


def test_every_link_leads_somewhere() -> None:
    docs = Path(__file__).parents[1] / "docs"
    for target in re.findall(r"\]\(([^)#]+\.md)\)", DOCS):
        assert (docs / target).is_file(), target
