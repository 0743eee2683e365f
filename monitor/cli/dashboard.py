"""How the state of all patients looks in a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alerts.conditions import Change, Priority, State
from alerts.delivery import describe
from alerts.rhythm import LETHAL
from models.bundle import Bundle
from monitor.board import Board, PatientNow
from monitor.rhythms import NAMES, sees_beats

_STYLES = {Priority.HIGH: "bold white on red", Priority.MEDIUM: "bold yellow", Priority.LOW: "cyan"}
_CONDITIONS = {
    "rate:high": "rate high",
    "rate:low": "rate low",
    "pause": "pause",
    "unseen": "heart not seen",
    **{rhythm.value: NAMES[rhythm] for rhythm in LETHAL},
}


def render(
    board: Board, bundle: Bundle, elapsed_s: float | None, speed: float | None
) -> RenderableType:
    """A table of patients, and under it the changes of alarms, the last one first."""
    names = bundle.class_names
    title = "Lead One - simulated patients, real pipeline and model. Not a medical device."
    caption = None
    if elapsed_s is not None and speed is not None:
        windows = sum(now.windows for now in board.patients.values())
        caption = f"{elapsed_s:.0f} s at {speed:g} times life, {windows} windows   Ctrl-C ends"
    table = Table(title=title, caption=caption, expand=True, title_justify="left")
    table.add_column("patient", style="bold", max_width=12, overflow="fold")
    table.add_column("alarms", ratio=5, overflow="fold")
    table.add_column("/min", justify="right", style="bold green", no_wrap=True)
    table.add_column("rhythm", ratio=5, overflow="fold")
    table.add_column("also seen", ratio=4, overflow="fold")
    table.add_column("signal", width=len("saturated,"))
    for now in board.patients.values():
        table.add_row(*_cells(now, names))
    lines = [_change_line(change, names) for change in reversed(board.changes)]
    return Group(table, *lines)


def _cells(now: PatientNow, names: dict[str, str]) -> tuple[RenderableType, ...]:
    good = now.quality == "good"
    signal = Text(now.quality, style="green" if good else "dim" if not now.windows else "red")
    alarms = Text("\n").join(
        Text(_condition(alarm.condition, names), style=_STYLES[alarm.priority])
        for alarm in now.alarms.values()
    )
    verdict = now.verdict
    if verdict is not None and verdict.rhythm in LETHAL:
        rate = "--" if verdict.rate is None else f"{verdict.rate:.0f}"
        shown = Text(NAMES[verdict.rhythm], style=_STYLES[Priority.HIGH])
        return now.patient, alarms, Text(rate), shown, "", signal
    if not good or (verdict is not None and not sees_beats(verdict)):
        # The rate of a minute ago looks like that of now to whoever glances in passing.
        return now.patient, alarms, Text("--", style="dim"), "", "", signal
    rate = "--" if now.heart_rate is None else f"{now.heart_rate:.0f}"
    rhythm = "--"
    if now.rhythm is not None:
        name, p = now.rhythm
        rhythm = f"{names.get(name, name)} {p:.2f}"
    found = ", ".join(f"{c} {p:.2f}" for c, p in now.findings[:4])
    # As text: a string would be read as markup.
    return now.patient, alarms, *map(Text, (rate, rhythm, found)), signal


def _condition(condition: str, names: dict[str, str]) -> str:
    kind, _, name = condition.partition(":")
    return names.get(name, name) if kind == "class" else _CONDITIONS.get(condition, condition)


def _change_line(change: Change, names: dict[str, str]) -> Text:
    style = _STYLES[change.alarm.priority] if change.state is State.ACTIVE else "dim"
    return Text(describe(change, names), style=style, overflow="fold")
