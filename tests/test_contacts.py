"""From configured contacts to channels, and to who is told when."""

import subprocess
import sys
from datetime import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from alerts.channels.apprise import AppriseChannel
from alerts.channels.command import CommandChannel
from alerts.channels.sound import SoundChannel
from alerts.channels.webhook import WebhookChannel
from alerts.escalation import Ladder, LethalLadder, Step
from alerts.gateway import GATEWAY
from alerts.quiet import QuietHours
from monitor.clock import now
from monitor.config import Config, ConfigError
from monitor.contacts import build_channels, build_plans

# Apprise's e-mail imports it for an encryption that is not used.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

HOOK = {"type": "webhook", "url": "https://example.org/alarm", "secret": "s3cret"}
COMMAND = {"type": "command", "command": ["/bin/true"]}


def contact(name: str, *channels: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "channels": list(channels or (COMMAND,))}


def config(*contacts: dict[str, Any], patients: Any = ({"id": "anna"},), **more: Any) -> Config:
    return Config.model_validate(
        {
            "database": "sqlite:////tmp/x.db",
            "patients": list(patients),
            "alarms": {"contacts": list(contacts)} | more,
        }
    )


def test_each_kind_of_channel_by_contact_and_type() -> None:
    ntfy = {"type": "apprise", "url": "ntfy://example.org/topic"}
    made = build_channels(
        config(
            contact("bob", ntfy, HOOK, COMMAND, {"type": "sound"}),
            contact("eve", COMMAND),
        )
    )
    assert {name: [(c.name, type(c)) for c in some] for name, some in made.items()} == {
        "bob": [
            ("bob-apprise", AppriseChannel),
            ("bob-webhook", WebhookChannel),
            ("bob-command", CommandChannel),
            ("bob-sound", SoundChannel),
        ],
        "eve": [("eve-command", CommandChannel)],
    }


def test_two_of_a_kind_are_told_from_one_another() -> None:
    """What was delivered on one of them is kept by its name."""
    made = build_channels(config(contact("bob", COMMAND, HOOK, COMMAND)))
    names = [channel.name for channel in made["bob"]]
    assert names == ["bob-command", "bob-webhook", "bob-command-3"]


def test_every_channel_that_cannot_be_used_is_named_without_its_secret() -> None:
    wrong = {"type": "apprise", "url": "nosuch://s3cret@example.org"}
    with pytest.raises(ConfigError) as caught:
        build_channels(config(contact("bob", COMMAND, wrong), contact("eve", wrong)))
    first, second = caught.value.problems
    assert first.startswith("alarms.contacts[0].channels[1]: ")
    assert second.startswith("alarms.contacts[1].channels[0]: ")
    assert "s3cret" not in str(caught.value)


def test_by_default_everybody_is_told_at_once_and_reminded_as_it_is_urgent() -> None:
    plan = build_plans(config(contact("bob"), contact("eve")))("anna")
    everybody = (Step(0.0, ("bob", "eve")),)
    assert plan.high == Ladder(everybody, 300.0, latching=True)
    assert plan.medium == Ladder(everybody, 1800.0)
    assert plan.low == Ladder(everybody)
    assert plan.quiet is None


def test_without_contacts_nobody_is_told() -> None:
    plan = build_plans(config())("anna")
    assert plan.high.steps == plan.medium.steps == plan.low.steps == ()
    assert plan.contacts == frozenset()


STEPS = [{"after": "0s", "contacts": ["bob"]}, {"after": "10m", "contacts": ["eve", "zoe"]}]


def test_a_ladder_as_it_is_configured() -> None:
    made = config(
        *map(contact, ("bob", "eve", "zoe")),
        escalation={"high": {"steps": STEPS, "repeat": "2m"}, "low": {"repeat": "24h"}},
        quiet_hours={"start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"},
    )
    plan = build_plans(made)("anna")
    steps = (Step(0.0, ("bob",)), Step(600.0, ("eve", "zoe")))
    assert plan.high == Ladder(steps, 120.0, latching=True)
    assert plan.medium.steps == (Step(0.0, ("bob", "eve", "zoe")),)
    assert plan.low.repeat_s == 86_400.0
    assert plan.quiet == QuietHours(time(22), time(7), ZoneInfo("Europe/Berlin"))
    assert plan.contacts == {"bob", "eve", "zoe"}


@pytest.mark.parametrize(
    ("lethal", "ladder"),
    [
        # The same people, a minute apart at most.
        ({}, LethalLadder((Step(0.0, ("bob",)), Step(60.0, ("eve", "zoe"))))),
        (
            {"steps": [{"contacts": ["zoe"]}, {"after": "30s", "contacts": ["bob"]}]},
            LethalLadder((Step(0.0, ("zoe",)), Step(30.0, ("bob",)))),
        ),
        (
            {"repeat": "15s"},
            LethalLadder((Step(0.0, ("bob",)), Step(60.0, ("eve", "zoe"))), 15.0),
        ),
    ],
)
def test_lethal_rhythms_have_a_ladder_of_their_own(
    lethal: dict[str, Any], ladder: LethalLadder
) -> None:
    made = config(
        *map(contact, ("bob", "eve", "zoe")),
        patients=[{"id": "anna"}, {"id": "boris", "alarms": {"contacts": ["bob"]}}],
        escalation={"high": {"steps": STEPS, "repeat": "2m"}, "lethal": lethal},
    )
    plan_for = build_plans(made)
    assert plan_for("anna").lethal == ladder
    # Nobody is left for what comes before him: he is told at once.
    assert plan_for("boris").lethal == LethalLadder((Step(0.0, ("bob",)),), ladder.repeat_s)


@pytest.mark.parametrize(
    ("only", "steps"),
    [
        (["bob", "zoe"], (Step(0.0, ("bob",)), Step(600.0, ("zoe",)))),
        # Of the first rung nobody is left: it is not waited for.
        (["eve"], (Step(600.0, ("eve",)),)),
        # On no rung at all, and yet somebody.
        (["una"], (Step(0.0, ("una",)),)),
    ],
)
def test_a_patient_with_contacts_of_their_own(only: list[str], steps: tuple[Step, ...]) -> None:
    made = config(
        *map(contact, ("bob", "eve", "zoe", "una")),
        patients=[{"id": "anna", "alarms": {"contacts": only}}, {"id": "boris"}],
        escalation={"high": {"steps": STEPS}},
    )
    plan_for = build_plans(made)
    assert plan_for("anna").high.steps == steps
    assert plan_for("anna").medium.steps == (Step(0.0, tuple(only)),)
    assert plan_for("boris").high.steps == (Step(0.0, ("bob",)), Step(600.0, ("eve", "zoe")))
    # What is wrong with the gateway is everybody's business.
    assert plan_for(GATEWAY).medium.steps == (Step(0.0, ("bob", "eve", "zoe", "una")),)


def test_no_patient_goes_by_the_name_of_the_gateway() -> None:
    with pytest.raises(ValueError, match="is what the gateway's own alarms go by"):
        config(patients=[{"id": GATEWAY}])


def test_the_steady_clock_goes_on_while_the_machine_sleeps() -> None:
    first, second = now(), now()
    assert second.steady_ns > first.steady_ns
    assert second.utc_ns >= first.utc_ns
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert first.steady_ns / 1e9 == pytest.approx(uptime_s, abs=1.0)


LOOK = """
import sys
from monitor.config import Config
from monitor.contacts import build_channels
channels = [{"type": "command", "command": ["/bin/true"]}, {"type": "sound"}]
alarms = {"contacts": [{"name": "bob", "channels": channels}]}
config = {"database": "sqlite:////tmp/x.db", "patients": [{"id": "anna"}], "alarms": alarms}
assert len(build_channels(Config.model_validate(config))["bob"]) == 2
print({"apprise", "requests"} & set(sys.modules))
"""


def test_what_a_channel_needs_is_loaded_only_where_there_is_one() -> None:
    """Apprise takes a second to start and 20 MB."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "set()"
