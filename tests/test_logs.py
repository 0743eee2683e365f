"""The log: one shape for all who write to it, and no patient's name in it."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from monitor import logs

NAMES = ["Karl Lindqvist", "Åsa", "Jo", "Karl"]


class FailOnBadFormat(logging.Handler):
    """Renders every record as the real handler does, and fails where that would only complain."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def configure(
    monkeypatch: pytest.MonkeyPatch,
    format: Literal["auto", "human", "json"] = "json",  # noqa: A002
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    terminal: bool = False,
) -> io.StringIO:
    """Log into a buffer, and fail the test on a log call whose format does not fit its values."""
    output = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    logs.configure(level, format, NAMES)
    root = logging.getLogger()
    (ours,) = [handler for handler in root.handlers if isinstance(handler, logs._Handler)]
    assert ours.formatter is not None
    root.addHandler(FailOnBadFormat(ours.formatter))
    return output


def entries(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_json_lines_with_utc_times(monkeypatch: pytest.MonkeyPatch) -> None:
    output = configure(monkeypatch)
    structlog.get_logger("monitor.daemon").info("window stored", patient="grandpa", n=3)
    (entry,) = entries(output)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry.pop("timestamp"))
    assert entry == {
        "event": "window stored",
        "level": "info",
        "logger": "monitor.daemon",
        "patient": "grandpa",
        "n": 3,
    }


def test_the_standard_library_and_warnings_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's own capture of warnings has taken the place that configure() is to take
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        output = configure(monkeypatch)
        logging.getLogger("alembic.runtime").info("running upgrade %s -> %d", "base", 1)
        warnings.warn("an index is missing", stacklevel=1)
    upgrade, warning = entries(output)
    assert upgrade["event"] == "running upgrade base -> 1"
    assert upgrade["logger"] == "alembic.runtime"
    assert warning["level"] == "warning"
    assert warning["logger"] == "py.warnings"
    assert "an index is missing" in warning["event"]
    assert upgrade.keys() == warning.keys() == {"event", "level", "logger", "timestamp"}


def test_an_exception_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    output = configure(monkeypatch)
    try:
        fail("no such lead")
    except ValueError:
        structlog.get_logger().exception("source failed")
        logging.getLogger().exception("source failed")
    for entry in entries(output):
        assert entry["event"] == "source failed"
        assert entry["exception"].startswith("Traceback (most recent call last):\n")
        assert entry["exception"].endswith("ValueError: no such lead")


@pytest.mark.parametrize("writer", ["structlog", "logging"])
def test_less_important_messages_are_left_out(monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    output = configure(monkeypatch, level="warning")
    log: Any = structlog.get_logger() if writer == "structlog" else logging.getLogger("x")
    log.info("not this")
    log.warning("this")
    assert [entry["event"] for entry in entries(output)] == ["this"]


def test_configuring_again_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    first = configure(monkeypatch)
    log = structlog.get_logger()
    second = configure(monkeypatch, level="debug")
    log.debug("hello")
    assert first.getvalue() == ""
    assert [entry["event"] for entry in entries(second)] == ["hello"]


@pytest.mark.parametrize(
    ("format", "terminal", "json_expected", "colours"),
    [
        ("auto", False, True, False),
        ("auto", True, False, True),
        ("human", False, False, False),
        ("human", True, False, True),
        ("json", True, True, False),
    ],
)
def test_people_read_it_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    format: Literal["auto", "human", "json"],  # noqa: A002
    terminal: bool,
    json_expected: bool,
    colours: bool,
) -> None:
    output = configure(monkeypatch, format, terminal=terminal)
    structlog.get_logger().warning("alarm raised", patient="grandpa")
    text = output.getvalue()
    assert text.startswith("{") is json_expected
    assert ("\x1b[" in text) is colours
    assert "alarm raised" in text


def test_a_bad_format_fails_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with pytest.raises(TypeError):
        logging.getLogger("x").warning("%d of %d", *[1])


# --- names


def fail(message: str) -> None:
    raise ValueError(message)


@dataclass
class Person:
    name: str


@pytest.mark.parametrize("format", ["human", "json"])
def test_no_name_is_logged_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
    format: Literal["human", "json"],  # noqa: A002
) -> None:
    output = configure(monkeypatch, format)
    log = structlog.get_logger()
    structlog.contextvars.bind_contextvars(whose="Åsa")
    try:
        log.info("Karl Lindqvist's strap is connected", name="Somebody New", patient_name="Else")
        log.info("%s came home", "karl lindqvist")
        log.info("nested", data={"a": [("x", {"Åsa": "ÅSA"})], "name": "Somebody New"})
        log.info("object", person=Person("Karl Lindqvist"), path=b"Jo", names={"Jo"})
        log.bind(patient_name="Somebody New").info("bound")
        logging.getLogger("sqlalchemy").warning("bad value %r for %s", "Karl\nLindqvist", "Åsa")
        try:
            fail("Karl  Lindqvist is no id")
        except ValueError:
            log.exception("failed")
            logging.getLogger("asyncio").exception("failed")
        log.info("lines", value={1: ("of\nKarl\tLindqvist",), 2: Person("of\nÅsa")})
        log.info("stack", stack_info=True)
    finally:
        structlog.contextvars.clear_contextvars()
    text = output.getvalue()
    assert text.count("[hidden]") > 15
    for name in ("lindqvist", "åsa", r"\u00c5sa", r"\u00e5sa", "somebody", "else", "'jo'", '"jo"'):
        assert name not in text.casefold()


def test_the_rest_is_left_as_it_is() -> None:
    guard = logs.NameGuard(NAMES)
    event = {
        "event": "Joanna's Karlsson strap, karla",
        "patient": "grandpa",
        "n": 3,
        "on": True,
        "nothing": None,
        "ratio": 0.5,
        "list": [1, "a"],
    }
    assert guard(None, "info", dict(event)) == event


def test_the_longer_name_goes_first() -> None:
    assert logs.NameGuard(["Anna", "Anna Maria"])(None, "", {"event": "Anna Maria, Anna"}) == {
        "event": "[hidden], [hidden]"
    }


def test_without_names_only_the_name_fields_are_hidden() -> None:
    event = {"event": "a b", "name": "x"}
    assert logs.NameGuard(["", "  "])(None, "", event) == {"event": "a b", "name": "[hidden]"}


def test_what_contains_itself_is_no_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    output = configure(monkeypatch)
    loop: list[object] = ["Åsa"]
    loop.append(loop)
    structlog.get_logger().info("loop", loop=loop, number=float("nan"))
    (entry,) = entries(output)
    assert entry["number"] == "nan"
    assert "sa'" not in output.getvalue()


VALUES = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from(NAMES),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(NAMES), inner),
    max_leaves=10,
)


@given(VALUES)
def test_any_value_becomes_strict_json_without_a_name(value: object) -> None:
    guarded = logs.NameGuard(NAMES)(None, "info", {"event": "x", "value": value})
    text = json.dumps(guarded, allow_nan=False, ensure_ascii=False)
    # "Jo" and "Åsa" may occur within other words that hypothesis makes up; as values they may not
    for name in NAMES:
        assert f'"{name}"' not in text
