"""What of lethal rhythms can be configured."""

from pathlib import Path

import pytest

from monitor.config import Config, ConfigError, load_config

PATIENT = 'patients: [{id: grandpa, emergency_note: "Storgatan 5, door code 4711. Has an ICD."}]\n'
CONTACTS = "  contacts: [{name: bob, channels: [{type: sound}]}]\n"


def load(folder: Path, alarms: str) -> Config:
    path = folder / "leadone.yaml"
    path.write_text(f"{PATIENT}alarms:\n{CONTACTS}{alarms}", encoding="utf-8")
    return load_config(path)


def test_left_out_it_is_112_and_every_half_minute(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.alarms.emergency_number == "112"
    assert config.alarms.escalation.lethal.repeat == 30.0
    assert config.alarms.escalation.lethal.steps is None


def test_the_note_is_for_messages_and_not_for_logs(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.emergency_notes == {"grandpa": "Storgatan 5, door code 4711. Has an ICD."}
    assert "4711" not in repr(config)


@pytest.mark.parametrize("number", ["112", "999", "+46 10 456 67 00", "0118-999"])
def test_numbers_that_can_be_called(tmp_path: Path, number: str) -> None:
    config = load(tmp_path, f'  emergency_number: "{number}"\n')
    assert config.alarms.emergency_number == number


@pytest.mark.parametrize(
    ("alarms", "problem"),
    [
        ("  emergency_number: 112\n", "emergency_number: expected text; put it in quotes"),
        ('  emergency_number: "call Bob"\n', "emergency_number: expected a telephone number"),
        (
            "  escalation: {lethal: {repeat: 10s}}\n",
            "escalation.lethal.repeat: must be from 15 s to 300 s",
        ),
        (
            "  escalation: {lethal: {repeat: 1h}}\n",
            "escalation.lethal.repeat: must be from 15 s to 300 s",
        ),
        (
            "  escalation: {lethal: {steps: [{after: 1m, contacts: [bob]}]}}\n",
            "escalation.lethal.steps[0].after: must be 0s: a lethal rhythm cannot wait",
        ),
        (
            "  escalation: {lethal: {steps: [{contacts: [bo]}]}}\n",
            "escalation.lethal.steps[0].contacts[0]: no contact has this name; did you mean 'bob'?",
        ),
    ],
)
def test_mistakes(tmp_path: Path, alarms: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, alarms)
    (said,) = caught.value.problems
    assert f"alarms.{problem}" in said
