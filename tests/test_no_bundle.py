"""No broken or home-made bundle silences the watch: hearts are watched, and people told of it."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from program import Leadone, Program, simulator, write_config
from rhythm_watches import VF
from test_gateway import ENDED, RAISED, about
from watching import until

from models.bundle import DEFAULT, GRAPH, MANIFEST, Bundle, find_bundle
from monitor.service import bundle_or_why_none
from monitor.storage.history import History

if TYPE_CHECKING:
    from house import House

    Make = Callable[..., House]

pytest_plugins = ["house", "in_process"]

# Where classes are named, which of them there are cannot be known without a bundle.
NAMED = {"classes": {"PVC": {"k": 3}, "AF": {"threshold": 0.6}}}


def cut(bundle: Path) -> None:
    """As a disk that was full leaves it."""
    content = (bundle / MANIFEST).read_bytes()
    (bundle / MANIFEST).write_bytes(content[: len(content) // 2])


def overwrite(bundle: Path) -> None:
    """As a failing memory card gives it back."""
    (bundle / MANIFEST).write_bytes(bytes(range(256)) * 16)


def empty(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b"")


def remove(bundle: Path) -> None:
    shutil.rmtree(bundle)


def change_rule(bundle: Path) -> None:
    """As somebody writes it who wants an alarm sooner: nine of the last eight windows."""
    manifest = yaml.safe_load((bundle / MANIFEST).read_text())
    af = next(c for c in manifest["classes"] if c["abbreviation"] == "AF")
    af["alarm"] |= {"k": 9, "n": 8}
    (bundle / MANIFEST).write_text(yaml.safe_dump(manifest))


def exchange_graph(bundle: Path) -> None:
    (bundle / GRAPH).write_bytes(b"this is no graph")


# Houses have one of their own.
SHIPPED_RULES = Bundle.__dict__["alarm_rules"]

DAMAGES = [
    (cut, "bundle.yaml: "),
    (overwrite, "not a bundle: 'utf-8' codec can't decode"),
    (empty, "bundle.yaml: document: "),
    (remove, "no such bundle; expected a folder or one of: lead1-base, lead1-tiny"),
    (change_rule, "alarm of AF.k: must be from 1 to n = 8, not 9"),
    (exchange_graph, "model.onnx: not the graph bundle.yaml was written for"),
]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle."""
    return Path(shutil.copytree(find_bundle(DEFAULT).path, tmp_path / "bundle"))


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
async def test_fibrillation_is_told_and_so_is_what_is_wrong_with_the_bundle(
    make: "Make", bundle: Path, damage: Callable[[Path], None], said: str
) -> None:
    house = make()
    damage(bundle)
    # The rules of the house's own bundle are no part of this one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bundle, "alarm_rules", SHIPPED_RULES)
        house.configure("bob", "eve", rules={} if damage is exchange_graph else NAMED)
        house.config = house.config.model_copy(update={"bundle": str(bundle)})
        house.bundle = bundle_or_why_none(house.config)
        async with house.running():
            house.strap.send(4, VF)
            await until(lambda: len(house.told) == 4, 40)
            assert sorted(about(house, "vf")) == [*RAISED]
            assert sorted(about(house, "model")) == [*RAISED]
    of_model = next(m for m in house.messages if m["data"]["condition"] == "model")
    assert of_model["title"] == "Gateway: rhythms are not being recognised"
    reason = of_model["data"]["reason"]
    assert said in reason
    assert str(bundle) in reason
    assert "\n" not in reason


async def test_an_alarm_of_a_class_outlives_a_run_without_a_bundle(
    make: "Make", bundle: Path
) -> None:
    """Nobody can say that it is over; and once there is a bundle again, it is."""
    house = make()
    whole = house.bundle
    house.heart.af = 0.9
    async with house.running():
        await house.see(3)
        await house.until_told(*RAISED)
    cut(bundle)
    house.config = house.config.model_copy(update={"bundle": str(bundle)})
    house.bundle = bundle_or_why_none(house.config)
    house.heart.af = 0.05
    async with house.running():
        await house.see(4)
        await house.until_told(*RAISED, *RAISED)
        assert sorted(about(house, "model")) == [*RAISED]
        with History(house.url) as history:
            conditions = {alarm.condition for alarm in history.active_alarms()}
        assert conditions == {"class:AF", "model"}
    house.bundle = whole
    async with house.running():
        await house.see(4)
        await until(lambda: len(house.told) == 8, 40)
    assert sorted(about(house, "class:AF")) == sorted([*RAISED, *ENDED])
    assert sorted(about(house, "model")) == sorted([*RAISED, *ENDED])


# --- the commands


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_check_and_doctor_say_plainly_what_is_wrong(
    leadone: Leadone, tmp_path: Path, bundle: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(bundle)
    rules = {} if damage is exchange_graph else {"rules": NAMED}
    config = write_config(tmp_path, [simulator()], bundle=str(bundle), alarms=rules)
    done = leadone("config", "check", "-c", config)
    assert done.code == 1
    assert said in done.complaint
    done = leadone("doctor", "-c", config, "--json")
    assert done.code == 1
    (found,) = [row for row in done.rows if row["about"] == "model"]
    assert found["well"] is False
    assert said in found["text"]
    assert "\n" not in found["text"]
    # And the rest is looked at all the same.
    assert {"watch for lethal rhythms", "database", "disk"} <= {row["about"] for row in done.rows}


def test_alarms_are_paused_and_explained_all_the_same(
    leadone: Leadone, tmp_path: Path, bundle: Path
) -> None:
    cut(bundle)
    config = write_config(tmp_path, [simulator()], bundle=str(bundle), alarms={"rules": NAMED})
    assert leadone("db", "upgrade", "-c", config).code == 0
    for kind in ("vf", "class:AF"):
        done = leadone("alarms", "pause", "anna", "--for", "1h", "--kind", kind, "-c", config)
        assert "is not running" in done.err, done
    done = leadone("alarms", "pause", "anna", "--for", "1h", "--kind", "vfib", "-c", config)
    assert done.code == 2
    assert "'vfib' is no kind of alarm of anna" in done.complaint
    done = leadone("alarms", "explain", "anna", "-c", config)
    assert done.code == 0
    assert "nothing can be said of the model's classes" in done.out


def test_the_daemon_runs_with_a_damaged_manifest_and_tells_of_a_heart_that_fibrillates(
    tmp_path: Path, bundle: Path
) -> None:
    cut(bundle)
    told = tmp_path / "told"
    script = tmp_path / "tell"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$LEADONE_TITLE" >> {told}\n')
    script.chmod(0o755)
    heart: dict[str, Any] = {
        **simulator(),
        "script": [
            {"kind": "sinus_rhythm", "duration": "5s"},
            {"kind": "ventricular_fibrillation", "duration": "5m"},
        ],
    }
    channels = [{"type": "command", "command": [str(script)]}]
    alarms = {"contacts": [{"name": "eve", "channels": channels}], "rules": NAMED}
    config = write_config(tmp_path, [heart], bundle=str(bundle), alarms=alarms)

    def titles() -> str:
        return told.read_text() if told.exists() else ""

    with Program("run", "-c", config, folder=tmp_path) as program:
        program.until_logged("ready")
        program.until(lambda: "rhythms are not being recognised" in titles(), 20)
        program.until(lambda: "URGENT: anna: " in titles(), 30)
        done = program.end(signal.SIGTERM)
    assert done.code == 0
    assert "Traceback" not in done.err
