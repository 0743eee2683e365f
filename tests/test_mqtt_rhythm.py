"""What the house is told of the verdicts of the watch for lethal rhythms."""

import json
from dataclasses import replace
from typing import Any

import jinja2
import pytest
from test_mqtt_docs import DOCS, blocks
from test_mqtt_out import NAMES, SEVEN, config, hear, said, shown, window

from alerts.rhythm import Rhythm, RhythmSeen
from ingest.chunk import Stream
from ingest.mqtt.broker import Broker
from monitor.mqtt import topics
from monitor.mqtt.house import MqttOut
from monitor.mqtt.state import PatientState
from monitor.quality import Reason

S = 1_000_000_000


def verdict(rhythm: Rhythm, at_s: float = 11.0, **changes: Any) -> RhythmSeen:
    """About the signal up to some seconds after seven; the rhythm began four seconds earlier."""
    at_ns = SEVEN + round(at_s * S)
    seen = RhythmSeen(
        patient="grandpa",
        device="chest",
        at_ns=at_ns,
        rhythm=rhythm,
        since_ns=at_ns - 4 * S,
        last_beat_ns=at_ns - S // 2 if rhythm is Rhythm.ORGANISED else SEVEN + 6 * S,
    )
    return replace(seen, **changes)


def take(patient: PatientState, seen: RhythmSeen, after_s: float = 0.0) -> bool:
    return patient.rhythm(seen, now_ns=SEVEN + round((11 + after_s) * S), now_s=1000.0 + after_s)


@pytest.fixture
def patient() -> PatientState:
    made = PatientState(NAMES)
    hear(made, window())
    return made


@pytest.mark.parametrize(
    ("seen", "rate", "rhythm"),
    [
        (verdict(Rhythm.ORGANISED, rate=66.0), 71, "atrial fibrillation"),
        (verdict(Rhythm.VF), None, "ventricular fibrillation"),
        (verdict(Rhythm.VT, rate=182.4), 182, "ventricular tachycardia"),
        (verdict(Rhythm.ASYSTOLE), None, "asystole"),
        # The last beat was five seconds ago, then a little more.
        (verdict(Rhythm.UNKNOWN), 71, "atrial fibrillation"),
        (verdict(Rhythm.UNKNOWN, last_beat_ns=SEVEN + 6 * S - 1), None, None),
        (verdict(Rhythm.UNKNOWN, last_beat_ns=None), None, None),
    ],
)
def test_the_state_has_the_verdict_and_no_rate_without_a_beat(
    patient: PatientState, seen: RhythmSeen, rate: int | None, rhythm: str | None
) -> None:
    take(patient, seen)
    state = said(patient)
    assert (state["heart_rate"], state["rhythm"]) == (rate, rhythm)
    assert (state["verdict"], state["verdict_since"]) == (
        seen.rhythm.value,
        "2026-11-21T07:00:07.000Z",
    )


def test_a_verdict_grows_old(patient: PatientState) -> None:
    take(patient, verdict(Rhythm.VF))
    assert said(patient, 10)["verdict"] == "vf"
    assert said(patient, 10.1)["verdict"] is None
    assert said(patient, 10.1)["heart_rate"] == 71


def test_a_verdict_goes_with_the_connection(patient: PatientState) -> None:
    take(patient, verdict(Rhythm.VF))
    patient.device(Stream("grandpa", "chest"), False, None, None)
    assert said(patient)["verdict"] is None


def test_what_is_history_is_no_verdict_of_now(patient: PatientState) -> None:
    assert not take(patient, verdict(Rhythm.VF, at_s=-290))
    assert said(patient)["verdict"] is None
    take(patient, verdict(Rhythm.ORGANISED))
    # Late signal, between that of now.
    assert not take(patient, verdict(Rhythm.VF, at_s=5))
    assert said(patient)["verdict"] == "organised"


def test_of_two_devices_the_one_that_sees_no_circulation_is_shown(patient: PatientState) -> None:
    take(patient, verdict(Rhythm.ORGANISED))
    take(patient, verdict(Rhythm.ORGANISED, device="patch"))
    assert said(patient)["device"] == "chest"
    take(patient, verdict(Rhythm.VF, device="patch"))
    assert (said(patient)["device"], said(patient)["verdict"]) == ("patch", "vf")
    take(patient, verdict(Rhythm.VT, at_s=12), 1)
    assert said(patient, 1)["device"] == "patch"


def test_only_news_is_told_at_once(patient: PatientState) -> None:
    since_ns = SEVEN
    told = [
        take(patient, verdict(rhythm, at_s=11 + i, since_ns=since_ns, last_beat_ns=beat_ns), i)
        for i, (rhythm, beat_ns) in enumerate(
            [
                (Rhythm.ORGANISED, SEVEN + 11 * S),
                (Rhythm.ORGANISED, SEVEN + 12 * S),
                (Rhythm.UNKNOWN, SEVEN + 12 * S),
                (Rhythm.UNKNOWN, SEVEN + 12 * S),
                # Six seconds without a beat: there is no rate any more.
                *[(Rhythm.UNKNOWN, SEVEN + 12 * S)] * 4,
                (Rhythm.VF, SEVEN + 12 * S),
                (Rhythm.VF, SEVEN + 12 * S),
            ]
        )
    ]
    assert told == [True, False, True, False, False, False, False, True, True, False]


def test_news_make_the_state_due_and_strangers_nothing() -> None:
    out = MqttOut(
        Broker("localhost", 1883),
        {"grandpa": None},
        NAMES,
        discovery="homeassistant",
        acknowledge=lambda *_: None,
        now_ns=lambda: SEVEN + 11 * S,
    )
    state = topics.state("grandpa")
    out.rhythm(verdict(Rhythm.VF, patient="grandma"))
    assert out._dirty == set()
    out.rhythm(verdict(Rhythm.VF))
    assert out._dirty == {state}
    assert json.loads(out._payloads[state]())["verdict"] == "vf"
    told = json.loads(out._payloads[topics.discovery("homeassistant", "grandpa")]())
    assert "asystole" in told["components"]["rhythm"]["options"]


def test_home_assistant_shows_the_verdict(patient: PatientState) -> None:
    component = config()["components"]["verdict"]
    take(patient, verdict(Rhythm.ASYSTOLE))
    state = said(patient)
    assert state["verdict"] in component["options"]
    assert set(component["options"]) == {rhythm.value for rhythm in Rhythm}
    assert shown("verdict", state) == "asystole"
    templates = jinja2.Environment(autoescape=False)
    templates.filters["tojson"] = json.dumps
    template = templates.from_string(component["json_attributes_template"])
    attributes = json.loads(template.render(value_json=state))
    assert attributes == {"since": "2026-11-21T07:00:07.000Z"}


def test_the_documented_state_is_one(patient: PatientState) -> None:
    section = DOCS[DOCS.index("## What leadone tells") :]
    documented = json.loads(blocks(section, "json")[0])
    hear(patient, window(Reason.NOISY))
    assert [*documented] == [*said(patient)]
    for rhythm in Rhythm:
        assert f"`{rhythm.value}`" in section
