"""What a channel is given, what it does, and how it says that it could not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from alerts.conditions import Priority

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

_URL = re.compile(
    r"([a-z][a-z0-9+.-]*://)(?:[^\s/?#@]*@)?([^\s/?#@\"'<>]*)[^\s\"'<>]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Message:
    """What one person is told, ready to be sent.

    Attributes:
        key: unique for each notification: a receiver may drop a second message with the same key.
        thread: the same for all messages of one bout, for channels that have threads.
        priority: how soon somebody must act.
        title: one line.
        body: lines of plain text.
        data: the same for machines: the alarm, its patient, condition, state and times.
        picture: the strip as a PNG, None without one.
    """

    key: str
    thread: str
    priority: Priority
    title: str
    body: str
    data: Mapping[str, JsonValue]
    picture: bytes | None = None


class DeliveryError(Exception):
    """A message was not delivered, or nobody can tell whether it was.

    The text is one line without secrets, begun with the name of the channel.

    Attributes:
        permanent: whether another try can only fail in the same way.
        retry_after_s: how long the receiver wants to be left alone, in seconds, None if it does
            not say.
    """

    def __init__(
        self, text: str, *, permanent: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """One way to one receiver."""

    @property
    def name(self) -> str:
        """What it is called in the configuration."""

    async def send(self, message: Message) -> None:
        """Deliver one message; the caller bounds the time by cancelling.

        Raises:
            DeliveryError: it was not delivered.
        """


def document(message: Message) -> dict[str, JsonValue]:
    """A message as JSON for a program to read; its picture goes another way."""
    return {
        "key": message.key,
        "thread": message.thread,
        "priority": message.priority.value,
        "title": message.title,
        "body": message.body,
        "data": dict(message.data),
    }


def masked(text: str) -> str:
    """The text with every URL cut down to its scheme and host: the rest may be a secret."""
    return _URL.sub(r"\1\2/…", text)
