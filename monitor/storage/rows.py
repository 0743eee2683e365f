"""Records to rows and back."""

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerts.conditions import Alarm, Change, Priority
from ingest.chunk import Chunk, Stream
from ingest.rr import RrIntervals
from monitor.quality import Grade, Quality, Reason
from monitor.results import ModelId, WindowResult
from monitor.storage.codec import decode, encode
from monitor.storage.records import Examined, RefusedMessage, Strap, StrapState
from monitor.storage.schema import TEXT_LIMIT
from monitor.window import Gap

# No chunk is longer: a damaged row may say anything of its length, and nobody makes room for that.
_MOST_SAMPLES = 1 << 24
_LONGEST_S = 86_400.0

Row = Mapping[Any, Any]
"""What SQLAlchemy gives for a selected row, or takes to insert one; by column name."""


def checked_text(value: str) -> str:
    """The value, if both databases can keep it.

    Raises:
        ValueError: it is too long, or holds a NUL.
    """
    # SQLite would take both, Postgres neither, and says so in different ways.
    if len(value) > TEXT_LIMIT or "\0" in value:
        # Not which text: it may be a name.
        raise ValueError(f"text of {len(value)} characters, or with a NUL in it")
    return value


def segment_row(chunk: Chunk) -> dict[str, Any]:
    """The columns of a chunk, without its device.

    Raises:
        ValueError: the samples are not float32 [n] (``CodecError``), or the rate is no rate.
    """
    if not (math.isfinite(chunk.rate) and chunk.rate > 0):
        raise ValueError(f"a rate of {chunk.rate} Hz")
    facts = {
        "rate": float(chunk.rate),
        "n": len(chunk.microvolts),
        "contact": None if chunk.contact is None else bool(chunk.contact),
        "sequence": None if chunk.sequence is None else int(chunk.sequence),
    }
    blob = encode(chunk.microvolts)
    # Over the samples, not the blob: another zlib may deflate the same samples otherwise.
    digest = blake2b(repr(facts).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(chunk.microvolts).data)
    return {"start_ns": int(chunk.start_ns), "digest": digest.digest(), **facts, "blob": blob}


def chunk_from(stream: Stream, row: Row) -> Chunk:
    """The chunk of a row.

    Raises:
        CodecError: its blob is garbled.
    """
    return Chunk(
        stream, row["start_ns"], row["rate"], decode(row["blob"]), row["contact"], row["sequence"]
    )


def segment_end_ns(start_ns: int, n: int, rate: float) -> int:
    """UTC time, in nanoseconds, just after the last of ``n`` samples; the start of a bad row."""
    if not (0 <= n < _MOST_SAMPLES and rate > 0 and n / rate < _LONGEST_S):
        return start_ns
    return start_ns + round(n / rate * 1e9)


def rr_intervals_row(packet: RrIntervals) -> dict[str, Any]:
    """The columns of RR intervals, without their device."""
    facts = {
        "heart_rate": None if packet.heart_rate is None else int(packet.heart_rate),
        "contact": None if packet.contact is None else bool(packet.contact),
    }
    rr = np.array(packet.rr_s, "<f8").tobytes()
    digest = blake2b(repr(facts).encode() + rr, digest_size=8)
    return {"end_ns": int(packet.end_ns), "digest": digest.digest(), **facts, "rr": rr}


def rr_intervals_from(stream: Stream, row: Row) -> RrIntervals:
    """The RR intervals of a row."""
    rr_s = tuple(np.frombuffer(row["rr"], "<f8").tolist())
    return RrIntervals(stream, row["end_ns"], rr_s, row["heart_rate"], row["contact"])


def window_row(result: WindowResult) -> dict[str, Any]:
    """The columns of a window, without its device and model.

    Raises:
        ValueError: probabilities and the model's classes do not match.
    """
    classes = None if result.model is None else len(result.model.classes)
    found = None if result.probabilities is None else len(result.probabilities)
    if classes != found:
        raise ValueError(f"{found} probabilities for {classes} classes")
    numbers = {
        "duration_s": float(result.duration_s),
        "heart_rate": _optional(result.heart_rate),
        "longest_rr_s": _optional(result.longest_rr_s),
    }
    words = {"quality": str(result.grade.quality), "reasons": " ".join(result.grade.reasons)}
    r_peaks = np.asarray(result.r_peaks_s, "<f8").tobytes()
    digest = blake2b(repr((numbers, words)).encode(), digest_size=8)
    digest.update(r_peaks)
    return {
        "start_ns": int(result.start_ns),
        "digest": digest.digest(),
        **numbers,
        **words,
        "r_peaks": r_peaks,
        "probabilities": None
        if result.probabilities is None
        else np.asarray(result.probabilities, "<f4").tobytes(),
    }


def window_from(stream: Stream, row: Row, models: Mapping[int, ModelId]) -> WindowResult:
    """The window of a row."""
    return WindowResult(
        stream=stream,
        start_ns=row["start_ns"],
        duration_s=row["duration_s"],
        grade=Grade(Quality(row["quality"]), tuple(map(Reason, row["reasons"].split()))),
        heart_rate=row["heart_rate"],
        longest_rr_s=row["longest_rr_s"],
        r_peaks_s=np.frombuffer(row["r_peaks"], "<f8"),
        model=None if row["model_id"] is None else models[row["model_id"]],
        probabilities=None
        if row["probabilities"] is None
        else probabilities_from(row["probabilities"]),
    )


def probabilities_from(blob: bytes) -> NDArray[np.float32]:
    """The probabilities of a window's row, in the order of its model's classes."""
    return np.frombuffer(blob, "<f4")


def gap_row(gap: Gap) -> dict[str, Any]:
    """The columns of a gap, without its device."""
    return {
        "start_ns": int(gap.start_ns),
        "end_ns": int(gap.end_ns),
        "cause": checked_text(gap.cause),
    }


def gap_from(stream: Stream, row: Row) -> Gap:
    """The gap of a row."""
    return Gap(stream, row["start_ns"], row["end_ns"], row["cause"])


def examined_row(examined: Examined) -> dict[str, Any]:
    """The columns of how far a stream was looked through, without its device."""
    times = {
        "clear_ns": examined.clear_ns,
        "low_ns": examined.low_ns,
        "high_ns": examined.high_ns,
    }
    return {name: None if ns is None else int(ns) for name, ns in times.items()}


def strap_row(strap: Strap) -> dict[str, Any]:
    """The columns of a strap, without its device."""
    return {
        "address": checked_text(strap.address),
        "kind": checked_text(strap.kind),
        "adapter": None if strap.adapter is None else checked_text(strap.adapter),
        "paired_ns": int(strap.paired_ns),
    }


def strap_state_row(state: StrapState) -> dict[str, Any]:
    """The columns of a strap's state, without its device."""
    return {
        "stage": checked_text(state.stage),
        "cause": state.cause,
        "advice": state.advice,
        "since_ns": int(state.since_ns),
        "battery": None if state.battery is None else int(state.battery),
        "battery_ns": None if state.battery_ns is None else int(state.battery_ns),
    }


def strap_from(row: Row) -> tuple[Strap, StrapState | None]:
    """The strap of a row joined with its device, and its state."""
    stream = Stream(row["patient_id"], row["device"])
    strap = Strap(stream, row["address"], row["kind"], row["adapter"], row["paired_ns"])
    if row["stage"] is None:
        return strap, None
    columns = ("stage", "cause", "advice", "since_ns", "battery", "battery_ns")
    return strap, StrapState(stream, *(row[column] for column in columns))


def refused_message_row(message: RefusedMessage) -> dict[str, Any]:
    """The columns of a refused message; NULs, which Postgres does not take, are made visible."""
    return {
        "reason": checked_text(message.reason),
        "first_ns": int(message.first_ns),
        "last_ns": int(message.last_ns),
        "topic": message.topic.replace("\0", "\\0"),
        "detail": message.detail.replace("\0", "\\0"),
        "excerpt": message.excerpt,
    }


def alarm_row(alarm: Alarm) -> dict[str, Any]:
    """The columns of an alarm."""
    return {
        "id": checked_text(alarm.id),
        "patient_id": checked_text(alarm.patient),
        "condition": checked_text(alarm.condition),
        "priority": str(alarm.priority),
        "started_ns": int(alarm.started_ns),
        "raised_ns": int(alarm.raised_ns),
        "ended_ns": None if alarm.ended_ns is None else int(alarm.ended_ns),
    }


def alarm_from(row: Row) -> Alarm:
    """The alarm of a row."""
    return Alarm(
        id=row["id"],
        patient=row["patient_id"],
        condition=row["condition"],
        priority=Priority(row["priority"]),
        started_ns=row["started_ns"],
        raised_ns=row["raised_ns"],
        ended_ns=row["ended_ns"],
    )


def change_row(change: Change) -> dict[str, Any]:
    """The columns of a change."""
    return {
        "alarm_id": checked_text(change.alarm.id),
        "at_ns": int(change.at_ns),
        "state": str(change.state),
        "reason": change.reason,
    }


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)
