"""``leadone alarms``: what it shows, what the daemon does when asked, what it explains."""

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from notify_servers import Answer, http_server
from program import Done, Leadone, Program, simulator, write_config

from alerts.conditions import Alarm, Change, Observation, Priority, State
from alerts.engine import Engine
from alerts.escalation import Plan
from alerts.policy import Policy
from alerts.records import Output, Presence, Signal
from alerts.signals import Signals
from alerts.technical import Moment
from ingest.chunk import Stream
from models.bundle import DEFAULT, find_bundle
from monitor.cli import asking
from monitor.config.model import PatientConfig
from monitor.explain import run_again, verdicts
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult
from monitor.storage.history import History
from monitor.storage.maintenance import upgrade
from monitor.storage.records import Delivery, Patient, Record, Settled
from monitor.storage.writer import Writer
from monitor.window import Gap

pytest_plugins = ["in_process", "postgres"]

S = 1_000_000_000
NOON = 1_795_262_400 * S  # 2026-11-21T12:00:00Z
STREAM = Stream("anna", "h10")
AF, BORIS = "aaaa1111-0000-4000-8000-000000000001", "bbbb2222-0000-4000-8000-000000000002"
RULE = find_bundle(DEFAULT).alarm_rules["AF"]


def url_of(path: Path) -> str:
    return f"sqlite:///{path.parent}/leadone.db"


def store(path: Path, *records: Record) -> None:
    upgrade(url_of(path))
    writer = Writer(url_of(path))
    writer.start()
    writer.submit(*records).result()
    writer.stop()


def alarm(
    id_: str = AF, patient: str = "anna", condition: str = "class:AF", at_ns: int | None = None
) -> Alarm:
    at_ns = time.time_ns() - 60 * S if at_ns is None else at_ns
    return Alarm(id_, patient, condition, Priority.MEDIUM, at_ns - 30 * S, at_ns)


def raised(some: Alarm, contacts: Sequence[str] = ("me",)) -> list[Record]:
    """An alarm as an earlier run left it: raised, stored, and told to somebody."""
    signals = Signals(lambda _: Plan.telling(contacts))
    change = Change(some, some.raised_ns, State.ACTIVE, "AF: 6 of the last 8 good windows")
    outputs: list[Output] = signals.change(change, Moment(some.raised_ns, 0))
    key = f"{some.id}:raised:1"
    told = [Delivery(key, "me-command", "delivered", 1, some.raised_ns), Settled(key, "delivered")]
    return [change, *outputs, *(told if contacts else [])]


def signal_of(path: Path, id_: str = AF) -> Signal:
    with History(url_of(path)) as history:
        (found,) = (s for s in history.signals() if s.alarm.id == id_)
        return found


def audit(path: Path, id_: str = AF) -> list[tuple[str, str | None]]:
    with History(url_of(path)) as history:
        return [(a.what, a.by) for a in history.audit(id_)]


def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def told(path: Path) -> str:
    """The titles of all messages so far."""
    file = path.parent / "told"
    return file.read_text() if file.exists() else ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two patients, each with an alarm that is on; who is told writes down the titles."""
    write = "import os, sys; open(sys.argv[1], 'a').write(os.environ['LEADONE_TITLE'] + '\\n')"
    command = [sys.executable, "-c", write, str(tmp_path / "told")]
    path = write_config(
        tmp_path,
        [simulator("anna"), simulator("boris")],
        alarms={
            "contacts": [{"name": "me", "channels": [{"type": "command", "command": command}]}]
        },
    )
    store(path, *raised(alarm()), *raised(alarm(BORIS, "boris", "pause")))
    return path


@pytest.fixture
def daemon(path: Path) -> Iterator[Program]:
    with Program("run", "-c", path, folder=path.parent) as program:
        program.until_logged("ready")
        yield program
        assert program.end(signal.SIGTERM).code == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_ANSWER_S", 0.2)


# --- what is on


def test_what_is_on_comes_first(leadone: Leadone, path: Path) -> None:
    over = alarm("cccc3333-0000-4000-8000-000000000003", at_ns=time.time_ns() - 3600 * S)
    ended = Change(
        replace(over, ended_ns=over.raised_ns + 60 * S),
        over.raised_ns + 60 * S,
        State.ENDED,
        "it was over",
    )
    store(path, *raised(over)[:1], ended)
    done = leadone("alarms", "list", "-c", path)
    assert (done.code, done.err) == (0, "")
    heads = [line for line in done.out.splitlines() if not line.startswith(" ")]
    assert [h.split()[:4] for h in heads] == [
        ["ON", "medium", "aaaa1111", "anna:"],
        ["ON", "medium", "bbbb2222", "boris:"],
        ["over", "medium", "cccc3333", "anna:"],
    ]
    assert "looks like atrial fibrillation (class:AF)" in heads[0]
    assert "heart paused (pause)" in heads[1]
    assert "active: AF: 6 of the last 8 good windows" in done.out
    rows = leadone("alarms", "list", "-c", path, "--json").rows
    assert [(r["id"], r["presence"], r["state"]) for r in rows] == [
        (AF, "on", "active"),
        (BORIS, "on", "active"),
        (over.id, None, "ended"),
    ]


def test_what_nobody_answered_is_shown_however_old(leadone: Leadone, path: Path) -> None:
    week_ns = time.time_ns() - 7 * 86_400 * S
    old = alarm("dddd4444-0000-4000-8000-000000000004", at_ns=week_ns)
    ended = replace(old, ended_ns=week_ns + 60 * S)
    latched = Signal(
        alarm=ended,
        presence=Presence.LATCHED,
        since_ns=week_ns + 60 * S,
        bout=old.id,
        bout_count=1,
        bout_started_ns=week_ns,
    )
    store(
        path,
        Change(old, week_ns, State.ACTIVE, "seen"),
        Change(ended, week_ns + 60 * S, State.ENDED, "over"),
        latched,
    )
    done = leadone("alarms", "list", "-c", path, "--since", "1h")
    first, second = done.out.splitlines()[:2]
    assert first.startswith("LATCHED  medium  dddd4444 anna:")
    assert "nobody has answered" in second


def test_everything_of_one_alarm(leadone: Leadone, path: Path) -> None:
    key = f"{AF}:raised:1"
    store(path, Delivery(key, "me-webhook", "retrying", 3, NOON, "me-webhook: answered 503"))
    done = leadone("alarms", "show", "AAAA", "-c", path)
    assert (done.code, done.err) == (0, "")
    assert AF in done.out
    assert "raised: me: delivered" in done.out
    assert re.search(r"me-command: delivered$", done.out, re.MULTILINE)
    assert "me-webhook: retrying, 3 tries: me-webhook: answered 503" in done.out
    (row,) = leadone("alarms", "show", AF, "-c", path, "--json").rows
    assert [a["what"] for a in row["audit"]] == ["raised"]
    first = row["notifications"][0]
    assert (first["kind"], first["contact"], first["state"]) == ("raised", "me", "delivered")
    assert {d["channel"]: d["attempts"] for d in first["deliveries"]} == {
        "me-command": 1,
        "me-webhook": 3,
    }


def test_control_characters_do_not_reach_the_terminal(leadone: Leadone, path: Path) -> None:
    key = f"{AF}:raised:1"
    store(path, Delivery(key, "me-command", "failed", 1, NOON, "\x1b[2Jgone"))
    assert "\x1b" not in leadone("alarms", "show", AF, "-c", path).out


@pytest.mark.parametrize(
    ("prefix", "code", "says"),
    [
        ("aaa", 2, "'aaa' is too short: give 4 or more characters of an alarm's id"),
        ("eeee", 1, "no alarm has an id that begins with 'eeee'"),
        ("a%__", 1, "no alarm has an id that begins with 'a%__'"),
    ],
)
@pytest.mark.parametrize("command", ["show", "ack", "explain"])
def test_no_such_alarm(
    leadone: Leadone, path: Path, command: str, prefix: str, code: int, says: str
) -> None:
    done = leadone("alarms", command, prefix, "-c", path)
    assert (done.code, done.out) == (code, "")
    assert says in done.complaint


def test_an_id_that_is_not_enough(leadone: Leadone, path: Path) -> None:
    twin = "aaaa1111-9999-4000-8000-000000000009"
    store(path, *raised(alarm(twin, condition="rate:high"), ()))
    done = leadone("alarms", "show", "aaaa1111", "-c", path)
    assert done.code == 1
    assert done.complaint.startswith("2 alarms have ids that begin with 'aaaa1111': ")
    assert twin in done.complaint
    assert AF in done.complaint
    assert leadone("alarms", "show", "aaaa1111-9", "-c", path).code == 0


def test_alarms_are_found_by_how_their_ids_begin(database_url: str) -> None:
    upgrade(database_url)
    writer = Writer(database_url)
    writer.start()
    ids = [AF, "aaaa_111-0000-4000-8000-000000000003", BORIS]
    some = [alarm(id_, condition=f"device:{i}") for i, id_ in enumerate(ids)]
    writer.submit(*(Change(a, a.raised_ns, State.ACTIVE, "x") for a in some)).result()
    writer.stop()
    with History(database_url) as history:
        found = {p: {a.id for a in history.find_alarms(p)} for p in ("aaaa", "aaaa_", "bb%", BORIS)}
    assert found == {"aaaa": set(ids[:2]), "aaaa_": {ids[1]}, "bb%": set(), BORIS: {BORIS}}


# --- asking the daemon


def test_acknowledged_while_the_daemon_runs(leadone: Leadone, path: Path, daemon: Program) -> None:
    done = leadone("alarms", "ack", "aaaa", "--by", "Anna  Ek", "-c", path)
    assert done == Done(
        0, "acknowledged: aaaa1111 anna: looks like atrial fibrillation (class:AF)\n", ""
    )
    # The answer was stored with what it tells of.
    found = signal_of(path)
    assert (found.presence, found.acknowledged_by) == (Presence.ACKNOWLEDGED, "Anna Ek")
    assert ("acknowledged", "Anna Ek") in audit(path)
    assert signal_of(path, BORIS).presence is Presence.ON
    listed = leadone("alarms", "list", "-c", path)
    assert "acknowledged by Anna Ek" in listed.out
    # What is left.
    done = leadone("alarms", "ack", "--all", "-c", path)
    assert done.code == 0
    assert done.out.startswith("acknowledged: bbbb2222 boris: ")
    done = leadone("alarms", "ack", "--all", "-c", path)
    assert done == Done(0, "no alarm waits for an answer\n", "")


def test_two_commands_at_once_are_both_answered(path: Path, daemon: Program) -> None:
    def ack(id_: str, by: str) -> Program:
        return Program("alarms", "ack", id_, "--by", by, "-c", path, folder=path.parent)

    with ack(AF, "one") as one, ack(BORIS, "two") as two:
        ends = [one.end(), two.end()]
    assert [(done.code, done.err) for done in ends] == [(0, "")] * 2
    assert signal_of(path, AF).acknowledged_by == "one"
    assert signal_of(path, BORIS).acknowledged_by == "two"


def test_what_is_asked_of_nobody_is_done_at_the_next_start(
    leadone: Leadone, path: Path, impatient: None
) -> None:
    asked = [
        leadone("alarms", "ack", AF, "--by", "me", "-c", path),
        leadone("alarms", "snooze", BORIS, "--for", "1s", "--by", "me", "-c", path),
    ]
    assert [(done.code, done.out) for done in asked] == [(1, "")] * 2
    not_here = "leadone is not running here, or hangs: it will be done when it starts again"
    assert asked[0].complaint == not_here
    assert asked[1].complaint == f"{not_here}, if its time is not over by then"
    assert signal_of(path).presence is Presence.ON
    time.sleep(1.0)
    with Program("run", "-c", path, folder=path.parent) as program:
        program.until(lambda: signal_of(path).presence is Presence.ACKNOWLEDGED)
        program.until(lambda: '"asked"' in program.err and "its end is past" in program.err)
        assert program.end(signal.SIGTERM).code == 0
    # A snooze whose end has passed snoozes nothing.
    assert signal_of(path, BORIS).presence is Presence.ON
    assert "snoozed" not in [what for what, _ in audit(path, BORIS)]


def test_a_snooze_ends(leadone: Leadone, path: Path, daemon: Program) -> None:
    done = leadone("alarms", "snooze", "aaaa", "--for", "5s", "--by", "me", "-c", path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("snoozed until ")
    (row,) = (r for r in leadone("alarms", "list", "-c", path, "--json").rows if r["id"] == AF)
    assert row["presence"] == "acknowledged"
    assert row["snoozed_until"] is not None
    until(lambda: signal_of(path).presence is Presence.ON)
    assert [what for what, _ in audit(path)][-2:] == ["snoozed", "snooze over"]
    # And is told.
    until(lambda: "after the snooze: anna" in told(path))


def test_pause_and_resume(leadone: Leadone, path: Path, daemon: Program) -> None:
    done = leadone(
        "alarms", "pause", "anna", "--kind", "class", "--for", "2h", "--by", "me", "-c", path
    )
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"paused until \d{4}-.*: anna, class; they are recorded.*\n", done.out)
    pause, *rows = leadone("alarms", "list", "-c", path, "--json").rows
    assert (pause["paused"], pause["kind"], pause["by"]) == ("anna", "class", "me")
    assert {r["id"]: r["paused_until"] for r in rows} == {AF: pause["until"], BORIS: None}
    assert f"paused until {pause['until'][:2]}" in leadone("alarms", "list", "-c", path).out
    done = leadone("alarms", "resume", "anna", "-c", path)
    assert done == Done(0, "anna: people are told of alarms again\n", "")
    until(lambda: "after the pause: anna" in told(path))
    assert "boris" not in told(path)
    done = leadone("alarms", "resume", "anna", "-c", path)
    assert (done.code, done.out) == (1, "")
    assert done.complaint == "no alarms of anna are paused"
    wide = leadone("alarms", "pause", "boris", "--for", "2h", "-c", path)
    assert "boris, all alarms but vf, vt, asystole; they are recorded" in wide.out
    assert wide.out.endswith("are told all the same: only a pause of one by --kind holds it\n")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ("ack", 2, "name alarms by their ids, or give --patient, or --all"),
        ("ack aaaa --all", 2, "one of these"),
        ("ack --patient zoe", 1, "there is no patient 'zoe'; there is anna, boris"),
        ("ack aaaa --by=", 2, "--by: must be a name of 1 to 100 characters"),
        ("snooze aaaa --for 25h", 2, "--for: must be over 0 and at most 24h, not 25h"),
        ("snooze aaaa --for 0s", 2, "--for: must be over 0"),
        ("snooze aaaa --for ever", 2, "--for: 'ever' is no duration"),
        ("pause anna --for 2d", 2, "--for: must be over 0 and at most 24h, not 2d"),
        ("pause zoe --for 1h", 1, "there is no patient 'zoe'"),
        ("pause anna --for 1h --kind class:AFF", 2, "'class:AFF' is no kind of alarm of anna"),
        ("pause anna --for 1h --kind disk", 2, "'disk' is no kind of alarm of anna"),
        ("pause anna --for 1h --kind device:", 2, "'device:' is no kind of alarm of anna"),
        ("resume zoe", 1, "there is no patient 'zoe'"),
        ("explain anna --at 1h --since 2h", 2, "give --at or --since, not both"),
        ("explain aaaa --at 1h", 2, "an alarm has its own time"),
        ("explain zoe", 2, "'zoe' is no patient, and 'zoe' is too short"),
    ],
)
def test_what_makes_no_sense_is_not_asked(
    leadone: Leadone, path: Path, args: str, code: int, says: str
) -> None:
    done = leadone("alarms", *args.split(), "-c", path)
    assert (done.code, done.out) == (code, "")
    assert says in done.complaint
    with History(url_of(path)) as history:
        assert history.requests() == []


@pytest.mark.parametrize(
    ("patient", "kind"),
    [("anna", "rate:low"), ("anna", "device"), ("anna", "device:h10"), ("gateway", "channel:me")],
)
def test_kinds_that_can_be_paused(
    leadone: Leadone, path: Path, impatient: None, patient: str, kind: str
) -> None:
    leadone("alarms", "pause", patient, "--kind", kind, "--for", "1h", "-c", path)
    with History(url_of(path)) as history:
        (request,) = history.requests()
    assert request.arguments == {"patient": patient, "kind": kind, "seconds": 3600.0}


def test_nothing_is_asked_of_an_alarm_that_is_off(leadone: Leadone, path: Path) -> None:
    some = replace(alarm(), ended_ns=time.time_ns())
    off = replace(signal_of(path), presence=Presence.OFF)
    store(path, Change(some, time.time_ns(), State.ENDED, "over"), off)
    for command in (["ack", "aaaa", "bbbb"], ["snooze", "aaaa", "--for", "1h"]):
        done = leadone("alarms", *command, "-c", path)
        assert (done.code, done.out) == (1, "")
        assert done.complaint.startswith("aaaa: that alarm (anna, class:AF) is off")
    with History(url_of(path)) as history:
        assert history.requests() == []


@pytest.mark.parametrize(
    ("environment", "by"),
    [({"SUDO_USER": "karl", "LOGNAME": "root"}, "karl"), ({"LOGNAME": "eva"}, "eva")],
)
def test_who_asks_is_who_is_logged_in(
    leadone: Leadone,
    path: Path,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    by: str,
) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    leadone("alarms", "ack", "--patient", "anna", "-c", path)
    with History(url_of(path)) as history:
        (request,) = history.requests()
    assert (request.what, request.by, request.arguments) == ("ack", by, {"alarms": [AF]})


# --- a test message


def with_contacts(folder: Path, **contacts: list[dict[str, Any]]) -> Path:
    named = [{"name": name, "channels": channels} for name, channels in contacts.items()]
    return write_config(folder, [simulator()], alarms={"contacts": named})


def test_a_test_message_by_every_channel(leadone: Leadone, tmp_path: Path) -> None:
    with http_server() as good, http_server(Answer(503)) as bad:
        webhook = {"type": "webhook", "secret": "s3cret"}
        path = with_contacts(
            tmp_path,
            anna=[webhook | {"url": good.url}, {"type": "command", "command": ["true"]}],
            boris=[webhook | {"url": bad.url}],
        )
        done = leadone("alarms", "test", "-c", path)
        assert done.code == 1
        # There is no database yet: a test goes out all the same.
        assert done.complaint.startswith("not on record that these channels work: sqlite:///")
        lines = sorted(done.out.splitlines())
        assert re.fullmatch(r"anna, anna-command: delivered in \d\.\d s", lines[0])
        assert re.fullmatch(r"anna, anna-webhook: delivered in \d\.\d s", lines[1])
        assert lines[2] == "boris, boris-webhook: failed: answered 503 Service Unavailable"
        (request,) = good.requests
        message = json.loads(request.body)
        assert message["title"] == "Test: this is not an alarm"
        assert message["data"] == {"kind": "test"}
        assert message["picture"].startswith("iVBORw0KGgo")  # the signature of a PNG, in base64

        only = leadone("alarms", "test", "--contact", "anna", "-c", path, "--json")
        assert only.code == 0
        assert {(r["channel"], r["delivered"], r["error"]) for r in only.rows} == {
            ("anna-webhook", True, None),
            ("anna-command", True, None),
        }
        assert len(bad.requests) == 1
        done = leadone("alarms", "test", "--contact", "zoe", "-c", path)
        assert done.complaint == f"--contact: {path} has no contact 'zoe'; it has anna, boris"


def test_a_channel_that_hangs_does_not_hold_up_the_others(
    leadone: Leadone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.outbox.SEND_S", 0.5)
    path = with_contacts(
        tmp_path,
        anna=[
            {"type": "command", "command": ["sleep", "60"]},
            {"type": "command", "command": ["true"]},
        ],
    )
    done = leadone("alarms", "test", "-c", path)
    assert done.code == 1
    first, second = done.out.splitlines()
    assert first.startswith("anna, anna-command-2: delivered in")
    assert second == "anna, anna-command: failed: no answer within 0.5 s"


def test_nobody_to_test(leadone: Leadone, tmp_path: Path) -> None:
    path = write_config(tmp_path, [simulator()])
    done = leadone("alarms", "test", "-c", path)
    assert done.code == 1
    assert done.complaint == f"{path}: nobody is told of alarms: alarms.contacts is empty"


# --- why there was an alarm, or none


def window(
    number: int, *, rate: float | None = 70.0, af: float = 0.0, bad: Reason | None = None
) -> WindowResult:
    """The window of 10 s that begins 5 s times ``number`` after noon."""
    return WindowResult(
        stream=STREAM,
        start_ns=NOON + number * 5 * S,
        duration_s=10.0,
        grade=Grade(Quality.GOOD) if bad is None else Grade(Quality.BAD, (bad,)),
        heart_rate=rate if bad is None else None,
        longest_rr_s=1.0 if bad is None else None,
        r_peaks_s=np.empty(0),
        model=ModelId("fake 1", "0" * 64, ("AF", "STach")) if bad is None else None,
        probabilities=np.array([af, 0.9], np.float32) if bad is None else None,
    )


def rates(*per_minute: float | None) -> list[WindowResult]:
    return [window(i, rate=rate) for i, rate in enumerate(per_minute)]


def weighed(windows: Sequence[WindowResult], condition: str) -> list[tuple[int, int, int]]:
    return [
        (w.speaking_for, w.speaking_against, w.of)
        for one in run_again("anna", Policy(), windows)
        for w in one.weights
        if w.rule.condition == condition
    ]


def test_the_evidence_is_counted_at_every_window() -> None:
    """130 per minute and more speaks for too fast, under 120 against it, between for neither."""
    seen = weighed(rates(70, 140, 125, 130, 119.9, None, 140), "rate:high")
    assert seen == [
        (0, 1, 1),
        (1, 1, 2),
        (1, 1, 3),
        (2, 1, 4),
        (2, 2, 5),
        (2, 2, 5),
        (3, 2, 6),
    ]


def test_only_the_last_n_windows_count() -> None:
    assert weighed(rates(*[140] * 5, *[70] * 8), "rate:high")[-1] == (0, 8, 8)
    assert weighed(rates(*[140] * 5, *[70] * 4), "rate:high")[-1] == (4, 4, 8)


def test_what_runs_again_is_what_ran() -> None:
    windows = rates(*[70] * 4, *[150] * 9, *[70] * 9)
    engine = Engine(lambda _: Policy())
    changes = [
        (c.alarm.condition, c.at_ns, c.state, c.reason)
        for w in windows
        for c in engine.step(
            Observation("anna", w.start_ns, w.end_ns, True, {}, w.heart_rate, w.longest_rr_s)
        )
    ]
    again = [
        (c.alarm.condition, c.at_ns, c.state, c.reason)
        for one in run_again("anna", Policy(), windows)
        for c in one.changes
    ]
    assert [state for _, _, state, _ in again] == ["active", "ended"]
    assert again == changes


def why(windows: Sequence[WindowResult], patient: PatientConfig | None = None) -> dict[Any, str]:
    explained = list(run_again("anna", Policy(), windows))
    found = verdicts(explained, Policy(), patient, {"AF": 0.5, "STach": 0.5})
    return {verdict.condition: verdict.why for verdict in found}


def test_why_there_was_none() -> None:
    assert why(rates(*[70] * 3, *[140] * 5, *[70] * 4))["rate:high"] == (
        "at most 5 of the last 8 good windows spoke for it; 6 of 8 must"
    )
    assert why(rates(70, 70))["rate:low"] == "no window speaks for it; 5 of 6 must"
    assert why(rates(None, None))["rate:high"] == "no window tells anything of it"
    assert why([])[None].startswith("no window is stored of this time")
    bad = [window(0), window(1, bad=Reason.NOISY), window(2, bad=Reason.CONTACT)]
    assert why(bad)[None].startswith("2 of 3 windows could not be read (contact, noisy)")
    assert why(rates(70))["class:STach"] == "seen, 0.90 at most, but there is no alarm for it"
    chronic = PatientConfig.model_validate({"id": "anna", "alarms": {"chronic": ["STach"]}})
    assert "alarms.chronic" in why(rates(70), chronic)["class:STach"]
    alarms = {"classes": {"AF": {"enabled": False}}}
    off = PatientConfig.model_validate({"id": "anna", "alarms": alarms})
    assert why(rates(70), off)["class:AF"] == "switched off (alarms.classes.AF.enabled)"


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    """A minute of sinus rhythm, one of AF as sure as can be, one of sinus rhythm, and its alarm."""
    path = write_config(
        tmp_path,
        [simulator("anna")],
        patients=[{"id": "anna"}, {"id": "boris", "alarms": {"chronic": ["AF"]}}],
    )
    k, n = int(RULE["k"]), int(RULE["n"])
    windows = [window(i, af=0.99 if 12 <= i < 24 else 0.01) for i in range(36)]
    first, deciding, ending = windows[12], windows[12 + k - 1], windows[24 + max(k, n - k + 1) - 1]
    some = Alarm(
        AF, "anna", "class:AF", Priority.MEDIUM, first.start_ns, deciding.end_ns, ending.end_ns
    )
    store(
        path,
        Patient("anna"),
        Patient("boris"),
        *windows,
        Change(replace(some, ended_ns=None), deciding.end_ns, State.ACTIVE, "AF"),
        Change(some, ending.end_ns, State.ENDED, "AF over"),
        Gap(STREAM, windows[-1].end_ns, windows[-1].end_ns + 9 * S, "no data"),
    )
    return path


def test_an_alarm_is_explained(leadone: Leadone, explained: Path) -> None:
    done = leadone("alarms", "explain", "aaaa", "-c", explained, "--json")
    assert (done.code, done.err) == (0, "")
    rule, *rest = done.rows
    k, n = RULE["k"], RULE["n"]
    assert (rule["rule"], rule["k"], rule["n"]) == ("class:AF", k, n)
    assert rule["threshold"] == RULE["threshold"]
    windows = [row for row in rest if "window" in row]
    evidence = {row["window"]: row["evidence"]["class:AF"] for row in windows}
    # The window that begins a minute after noon is the first of AF.
    first = evidence["2026-11-21T12:01:00.000Z"]
    assert first == {"value": pytest.approx(0.99), "for": 1, "against": n - 1, "of": n}
    deciding = next(row for row in windows if row["changes"])
    assert deciding["evidence"]["class:AF"]["for"] == k
    assert deciding["changes"][0]["state"] == "active"
    assert deciding["on"] == ["class:AF"]
    reasons = [row["why"] for row in rest if "why" in row]
    assert reasons[:2] == [
        "raised by the rule, run again, at the same window",
        "ended by the rule, run again, at the same window",
    ]
    people = leadone("alarms", "explain", "aaaa", "-c", explained)
    assert people.code == 0
    assert "rule: class:AF, medium: probability at or over" in people.out
    assert people.out.count("RAISED") == people.out.count("ENDED: ") == 1


def test_an_alarm_that_the_rules_would_not_raise(leadone: Leadone, explained: Path) -> None:
    pause = alarm(BORIS, "anna", "pause", at_ns=NOON + 50 * S)
    fast = alarm("cccc3333-0000-4000-8000-000000000003", "anna", "rate:high", NOON + 50 * S)
    gone = alarm("dddd4444-0000-4000-8000-000000000004", "anna", "class:XYZ", NOON + 50 * S)
    store(explained, *(Change(a, a.raised_ns, State.ACTIVE, "x") for a in (pause, fast, gone)))

    def says(id_: str) -> str:
        rows = leadone("alarms", "explain", id_, "-c", explained, "--json").rows
        return str(next(row["why"] for row in rows if "why" in row))

    rows = leadone(
        "alarms", "explain", "anna", "--at", "2026-11-21T12:01", "-c", explained, "--json"
    ).rows
    seen = {"condition": "pause", "why": "seen while it lasted, ahead of the windows"}
    assert seen in rows
    assert says(pause.id) == "seen while it lasted, ahead of the windows"
    assert says(fast.id).startswith("not raised by the rule of today")
    assert says(gone.id).startswith("no rule raises it any more")


def test_a_time_without_an_alarm_is_explained(leadone: Leadone, explained: Path) -> None:
    done = leadone("alarms", "explain", "anna", "--at", "2026-11-21T11:59:50", "-c", explained)
    assert done.code == 0
    assert "no alarm:" in done.out
    assert "rate:high: no window speaks for it; 6 of 8 must" in done.out
    assert re.search(r"│ … +│ \d+ more like it", done.out)
    none = leadone("alarms", "explain", "anna", "--at", "2026-11-20", "-c", explained)
    assert "anna: no window is stored of this time" in none.out
    boris = leadone("alarms", "explain", "boris", "-c", explained)
    assert "class:AF: known and lasting, so never an alarm (alarms.chronic)" in boris.out
    rows = leadone(
        "alarms", "explain", "anna", "--since", "2026-11-21", "-c", explained, "--json"
    ).rows
    assert len([row for row in rows if "window" in row]) == 36
    assert [row["gap"] for row in rows if "gap" in row] == ["no data"]
    assert [row["alarm"] for row in rows if "alarm" in row] == [AF]


def test_an_alarm_that_was_on_before_is_taken_up(leadone: Leadone, explained: Path) -> None:
    """What is looked at begins in the middle of AF: it is not raised a second time."""
    rows = leadone(
        "alarms", "explain", "anna", "--since", "2026-11-21T12:01:40", "-c", explained, "--json"
    ).rows
    changes = [c["state"] for row in rows for c in row.get("changes", [])]
    assert changes == ["ended"]
