from dataclasses import fields, is_dataclass, replace
from typing import get_args

import cbor2
import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from storage_samples import (
    bad_window,
    chunk,
    ended,
    gap,
    raised,
    window,
)

from alerts.conditions import Alarm, Change, Priority, State
from alerts.records import (
    Audit,
    Cancelled,
    ClockSet,
    Kind,
    Notification,
    Pause,
    Presence,
    Signal,
)
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult
from monitor.storage.batch import Batch
from monitor.storage.record_codec import UnreadableError, decode_group, encode_group
from monitor.storage.records import (
    ClockMended,
    Delivery,
    Examined,
    NoGap,
    Patient,
    Record,
    RefusedMessage,
    Request,
    Settled,
    Strap,
    StrapState,
    Unpaired,
)
from monitor.window import Gap

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NS = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(allow_nan=False, width=32)
STREAMS = st.builds(Stream, TEXT, TEXT)
ALARMS = st.builds(Alarm, TEXT, TEXT, TEXT, st.sampled_from(Priority), NS, NS, st.none() | NS)
MODELS = st.builds(ModelId, TEXT, TEXT, st.just(("AF", "PVC")))


def arrays(dtype):
    any_bits = st.lists(st.floats(width=32), max_size=12)
    return any_bits.map(lambda numbers: np.array(numbers, dtype))


def windows(classified):
    return st.builds(
        WindowResult,
        STREAMS,
        NS,
        FLOAT,
        st.builds(
            Grade,
            st.sampled_from(Quality),
            st.lists(st.sampled_from(Reason), max_size=3).map(tuple),
        ),
        st.none() | FLOAT,
        st.none() | FLOAT,
        arrays(np.float64),
        MODELS if classified else st.none(),
        st.just(np.array([0.1, 0.2], np.float32)) if classified else st.none(),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MAYBE_NS, MAYBE_TEXT = st.none() | NS, st.none() | TEXT
OF = {
    Chunk: st.builds(
        Chunk,
        STREAMS,
        NS,
        st.floats(0.5, 1e6),
        arrays(np.float32),
        st.none() | st.booleans(),
        MAYBE_NS,
        MAYBE_TEXT,
        st.just(lambda: None),
    ),
    RrIntervals: st.builds(
        RrIntervals,
        STREAMS,
        NS,
        st.lists(FLOAT, max_size=5).map(tuple),
        st.none() | st.integers(0, 300),
        st.none() | st.booleans(),
    ),
    WindowResult: windows(True) | windows(False),
    Change: st.builds(Change, ALARMS, NS, st.sampled_from(State), TEXT),
    Signal: st.builds(
        Signal,
        alarm=ALARMS,
        presence=st.sampled_from(Presence),
        since_ns=NS,
        bout=TEXT,
        bout_count=st.integers(1, 9),
        bout_started_ns=NS,
        told=st.lists(TEXT, max_size=3).map(tuple),
        acknowledged_by=MAYBE_TEXT,
        snoozed_until_ns=MAYBE_NS,
        signal_lost=st.booleans(),
    ),
    Notification: st.builds(
        Notification,
        key=TEXT,
        alarm_id=TEXT,
        patient=TEXT,
        contact=TEXT,
        kind=st.sampled_from(Kind),
        due_ns=NS,
        thread=TEXT,
        expires_with_alarm=st.booleans(),
    ),
    Request: st.builds(
        Request, TEXT, st.dictionaries(TEXT, JSON, max_size=3), TEXT, NS, MAYBE_NS, MAYBE_TEXT
    ),
    **{
        kind: st.from_type(kind)
        for kind in (
            Gap,
            *(Pause, Cancelled, ClockSet, Audit, Patient, Strap, StrapState, Unpaired),
            *(RefusedMessage, Delivery, Settled, Examined, NoGap, ClockMended),
        )
    },
}


def everything(value):
    """All that a record holds, with its types, so that two can be compared bit by bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        held = [
            everything(getattr(value, f.name)) for f in fields(value) if f.name != "acknowledge"
        ]
        return type(value), held
    if isinstance(value, tuple):
        return tuple(map(everything, value))
    return type(value), repr(value)


def metric(name):
    return REGISTRY.get_sample_value(name)


def test_there_is_a_sample_of_every_kind_of_record():
    assert set(OF) == set(get_args(Record))


@given(st.lists(st.one_of(*OF.values()), max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_record_comes_back_bit_by_bit(records):
    about = {"mark": ["writer", 2**62]}
    found, said = decode_group(encode_group(records, about))
    assert [*map(everything, found)] == [*map(everything, records)]
    assert said == about


def test_the_same_rows_are_stored():
    change = raised()
    records = [chunk(0), chunk(1, contact=None, sequence=None), window(0), bad_window(1), gap()]
    records += [change, ended(change), Patient("anna", "Anna")]
    found, _ = decode_group(encode_group(records))
    assert Batch.of(found) == Batch.of(records)


def test_numbers_of_numpy_are_plain_ones():
    found, _ = decode_group(encode_group([replace(window(), heart_rate=np.float64(71.5))]))
    assert type(found[0].heart_rate) is float


def rewritten(payload, change):
    group = cbor2.loads(payload)
    change(group["records"])
    return cbor2.dumps(group)


def test_what_another_version_wrote_is_read_as_far_as_it_is_known():
    def change(records):
        records[0]["colour"] = "red"  # a field that was added
        del records[1]["error"]  # one that was, and has a default
        records[2][""] = "Telepathy"  # a kind of record
        del records[3]["cause"]  # one that must be there
        records[4]["kind"]["value"] = "sung"  # a value
        records[5] = 5

    delivery = Delivery("k", "sms", "failed", 1, 5)
    note = Notification(
        key="k",
        alarm_id="a",
        patient="p",
        contact="c",
        kind=Kind.RAISED,
        due_ns=1,
        thread="t",
        expires_with_alarm=False,
    )
    records = [Patient("a"), delivery, Settled("k", "failed"), gap(), note, Patient("b"), gap(1)]
    before = metric("leadone_spool_unknown_total")
    with structlog.testing.capture_logs() as logs:
        found, _ = decode_group(rewritten(encode_group(records), change))
    assert found == (Patient("a"), delivery, gap(1))
    assert metric("leadone_spool_unknown_total") == before + 5
    assert [log.get("kind") for log in logs] == [
        "Patient",
        "Telepathy",
        "Gap",
        "Notification",
        "int",
    ]
    for nothing in (b"", b"\x00", cbor2.dumps({}), cbor2.dumps({"records": 5})):
        with pytest.raises(UnreadableError):
            decode_group(nothing)


def test_what_cannot_be_kept_is_said():
    with pytest.raises(TypeError):
        encode_group([Request("ack", {"a": object()}, "me", 1)])
