"""What people ask of the running daemon about its alarms, from the command line."""

from collections.abc import Sequence

from alerts.records import Output
from alerts.signals import Signals
from alerts.technical import Moment
from monitor.storage.records import Request


def answer(request: Request, signals: Signals, now: Moment) -> tuple[Sequence[Output], str]:
    """Do what is asked.

    Returns:
        What is to be stored, and one line for whoever asked; ``failed: …`` if it was not done.
    """
    try:
        return _do(request, signals, now)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        return (), f"failed: {error}"


def _do(request: Request, signals: Signals, now: Moment) -> tuple[Sequence[Output], str]:
    given, by = request.arguments, request.by
    match request.what:
        case "ack":
            ids = [str(alarm_id) for alarm_id in given["alarms"]]
            return signals.acknowledge(ids, by, now), f"acknowledged: {len(ids)}"
        case "snooze":
            ids = [str(alarm_id) for alarm_id in given["alarms"]]
            until_ns = _until(request)
            return signals.snooze(ids, until_ns, by, now), f"snoozed: {len(ids)}"
        case "pause":
            patient, kind = str(given["patient"]), given["kind"]
            until_ns = _until(request)
            return signals.pause(patient, kind, until_ns, by, now), "paused"
        case "resume":
            patient = str(given["patient"])
            pauses = signals.pauses(patient)
            if not pauses:
                raise ValueError(f"no alarms of {patient} are paused")
            outputs = [o for pause in pauses for o in signals.resume(pause.id, by, now)]
            return outputs, f"resumed: {len(pauses)}"
    raise ValueError(f"{request.what}: unknown request")


def _until(request: Request) -> int:
    """The end of a silence, counted from when it was asked for."""
    return request.at_ns + round(float(request.arguments["seconds"]) * 1e9)
