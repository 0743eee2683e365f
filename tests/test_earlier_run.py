"""What a start reads of an earlier run, whatever that left."""

from dataclasses import replace
from pathlib import Path

import pytest
from watching import STREAM, T0, fake_engine, new_database, started

from alerts.lethal import RhythmEngine
from ingest.chunk import Stream
from monitor.config import Config, ConfigError
from monitor.earlier_run import EarlierRun, readable, take_up
from monitor.storage.database import DatabaseError
from monitor.storage.history import History
from monitor.storage.records import Strap

GOOD = Strap(STREAM, "A0:9E:1A:00:00:01", "polar_h10", None, T0)
UNKNOWN = replace(GOOD, stream=Stream("anna", "new"), address="A0:9E:1A:00:00:02", kind="polar_h11")
STRANGERS = replace(GOOD, stream=Stream("zoe", "h10"), address="A0:9E:1A:00:00:03")


def taken_up(folder: Path, *straps: Strap, lenient: bool) -> EarlierRun:
    url = new_database(folder)
    writer = started(url)
    writer.submit(*straps).result()
    writer.stop()
    config = Config.model_validate({"database": url, "patients": [{"id": "anna"}]})
    with History(url) as history:
        return take_up(
            config, None, history, fake_engine(), RhythmEngine(), attended=True, lenient=lenient
        )


def test_a_strap_that_was_salvaged_and_does_not_fit_keeps_no_other_from_being_heard(
    tmp_path: Path,
) -> None:
    found = taken_up(tmp_path, GOOD, UNKNOWN, STRANGERS, lenient=True)
    assert [*found.straps.streams] == [STREAM]
    assert len(found.straps.sources()) == 1
    kind, patient = found.left_out
    assert "polar_h11" in kind
    assert "'zoe'" in patient


def test_a_strap_that_does_not_fit_is_told_of_where_the_database_is_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'zoe', who is not in the configuration"):
        taken_up(tmp_path, GOOD, STRANGERS, lenient=False)


def test_what_is_stored_and_makes_no_sense_is_the_databases_fault(tmp_path: Path) -> None:
    with (
        pytest.raises(
            DatabaseError, match=r"watch\.db: what is stored cannot be understood: dozing"
        ),
        readable(f"sqlite:///{tmp_path}/watch.db"),
    ):
        raise ValueError("dozing")
