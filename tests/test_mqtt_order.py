"""The order of numbered messages: by hand, and as a property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.mqtt.order import Order, Ordered
from ingest.mqtt.payload import Message

SECOND = 10**9


def message(seq: int | None, t0_s: float | None = None) -> Message:
    """One second of signal, by default at the second of its number."""
    t0_s = (seq or 0) if t0_s is None else t0_s
    return Message(round(t0_s * SECOND), 1.0, np.zeros(1, np.float32), seq, None, None)


class Talk:
    """Sends messages to an order and writes down what becomes of them."""

    def __init__(self) -> None:
        self.order = Order()
        self.now_ns = 0
        self.answered: list[str] = []
        self.out: list[Ordered] = []

    def send(self, seq: int | None, t0_s: float | None = None, name: str = "") -> list[int | None]:
        name = name or str(seq)
        return self._note(
            self.order.take(message(seq, t0_s), lambda: self.answered.append(name), self.now_ns)
        )

    def later(self, seconds: float) -> list[int | None]:
        self.now_ns += round(seconds * SECOND)
        return self._note(self.order.release(self.now_ns))

    def _note(self, ordered: list[Ordered]) -> list[int | None]:
        self.out += ordered
        return [o.message.sequence for o in ordered]

    @property
    def causes(self) -> list[str]:
        return [o.gap_cause for o in self.out if o.gap_cause is not None]


def test_messages_in_order_wait_for_nothing() -> None:
    talk = Talk()
    assert [talk.send(seq) for seq in (17, 18, 19)] == [[17], [18], [19]]
    assert talk.order.due_ns is None
    assert talk.causes == []


def test_messages_without_numbers_come_as_they_come() -> None:
    talk = Talk()
    assert [talk.send(None, t0) for t0 in (5, 3, 3)] == [[None], [None], [None]]
    assert talk.causes == []


def test_a_message_that_comes_early_waits_for_the_one_before_it() -> None:
    talk = Talk()
    assert talk.send(17) == [17]
    assert talk.send(20) == []
    assert talk.send(18) == [18]
    assert talk.send(19) == [19, 20]
    assert talk.order.due_ns is None
    assert talk.causes == []


def test_a_gap_is_accepted_after_two_seconds() -> None:
    talk = Talk()
    talk.send(17)
    assert talk.send(21) == []
    assert talk.order.due_ns == 2 * SECOND
    assert talk.later(1.9) == []
    assert talk.send(23) == []
    assert talk.order.due_ns == 2 * SECOND
    assert talk.later(0.1) == [21]
    assert talk.order.due_ns == round(3.9 * SECOND)  # 23 came at 1.9 s
    assert talk.later(1.9) == [23]
    assert talk.causes == ["messages lost, seq 18 to 20", "message lost, seq 22"]


def test_a_gap_is_accepted_when_eight_wait() -> None:
    talk = Talk()
    talk.send(17)
    assert [talk.send(seq) for seq in range(19, 26)] == [[]] * 7
    assert talk.send(26) == list(range(19, 27))
    assert talk.causes == ["message lost, seq 18"]


def test_a_message_that_comes_after_its_gap_was_accepted_is_passed_on() -> None:
    talk = Talk()
    talk.send(17)
    talk.send(19)
    assert talk.later(2) == [19]
    assert talk.send(18) == [18]
    assert talk.send(20) == [20]
    assert talk.causes == ["message lost, seq 18"]


def test_a_device_that_restarts_counts_anew() -> None:
    talk = Talk()
    talk.send(117)
    talk.send(118)
    assert talk.send(0, 119) == [0]
    assert talk.send(1, 120) == [1]
    assert talk.causes == ["device restarted, seq 118 to 0"]
    # back to numbers that were there before, at other times: they are no duplicates
    assert talk.send(0, 121) == [0]
    assert talk.send(1, 122) == [1]


def test_what_waits_comes_before_the_restart() -> None:
    talk = Talk()
    talk.send(5)
    assert talk.send(7) == []
    assert talk.send(0, 100) == [7, 0]
    assert talk.causes == ["message lost, seq 6", "device restarted, seq 7 to 0"]


def test_a_far_jump_is_a_new_numbering() -> None:
    talk = Talk()
    talk.send(5)
    assert talk.send(1_000_000) == [1_000_000]
    assert talk.send(1_000_001) == [1_000_001]
    assert talk.causes == ["numbering jumped, seq 5 to 1000000"]


def test_a_device_that_always_says_the_same_number_is_heard() -> None:
    talk = Talk()
    assert [talk.send(0, t0) for t0 in range(5)] == [[0]] * 5


def test_a_duplicate_is_answered_when_the_first_is() -> None:
    talk = Talk()
    talk.send(17, name="first")
    assert talk.send(17, name="again") == []
    assert talk.answered == []
    talk.out[0].receipt.settle()
    assert talk.answered == ["first", "again"]
    assert talk.send(17, name="late") == []
    assert talk.answered == ["first", "again", "late"]


def test_a_duplicate_of_one_that_waits_is_answered_with_it() -> None:
    talk = Talk()
    talk.send(17, name="17")
    talk.send(19, name="first")
    assert talk.send(19, name="again") == []
    assert talk.later(2) == [19]
    assert talk.answered == []
    talk.out[1].receipt.settle()
    assert talk.answered == ["first", "again"]


def test_what_is_remembered_is_bounded() -> None:
    talk = Talk()
    for seq in range(5000):
        talk.send(seq)
    assert len(talk.order._known) == 512
    assert talk.send(5000 - 512) == []
    assert len(talk.out) == 5000


@st.composite
def mixed(draw: st.DrawFn) -> list[int]:
    """Numbers from 0, none more than 7 places from its own, some of them twice."""
    count = draw(st.integers(1, 60))
    delays = [0, *(draw(st.integers(0, 7)) for _ in range(count - 1))]
    arrived = sorted(range(count), key=lambda i: (i + delays[i], i))
    repeated: list[int] = []
    for place, seq in enumerate(arrived):
        repeated.append(seq)
        if draw(st.booleans()):
            repeated.append(arrived[draw(st.integers(max(0, place - 20), place))])
    return repeated


@given(mixed(), st.lists(st.floats(0, 0.01), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_whatever_the_order_each_comes_once_and_in_turn(
    arrived: list[int], pauses: list[float]
) -> None:
    talk = Talk()
    for place, seq in enumerate(arrived):
        talk.send(seq, name=f"{seq} at {place}")
        talk.later(pauses[place % len(pauses)])
    assert [o.message.sequence for o in talk.out] == list(range(max(arrived) + 1))
    assert talk.causes == []
    # every delivery is answered exactly once, and none before its message is durable
    assert talk.answered == []
    for ordered in talk.out:
        ordered.receipt.settle()
    assert sorted(talk.answered) == sorted(f"{s} at {p}" for p, s in enumerate(arrived))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(0, 3)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_nothing_that_comes_is_lost(arrived: list[tuple[int, int, float]]) -> None:
    talk = Talk()
    for seq, t0_s, pause in arrived:
        talk.send(seq, t0_s)
        talk.later(pause)
    talk.later(2)
    assert talk.order.due_ns is None
    out = [(o.message.sequence, o.message.t0_ns // SECOND) for o in talk.out]
    assert sorted(out) == sorted({(seq, t0_s) for seq, t0_s, _ in arrived})


@pytest.mark.parametrize("seq", [0, 2**53])
def test_the_ends_of_the_numbers(seq: int) -> None:
    assert Talk().send(seq) == [seq]
