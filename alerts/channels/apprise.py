"""The hundred services that Apprise knows: ntfy, Telegram, e-mail, Pushover, SMS gateways and more.

One URL is one channel, so that a message that reached one of two services is not sent to it again
because the other failed. Apprise does not tell by a value why a delivery failed; it is read from
what it logs, of which nothing is passed on as it stands: URLs and tokens are in there.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alerts.channels.channel import DeliveryError, Message
from alerts.channels.threads import Threads
from alerts.channels.webhook import READ_S, cause, hush, in_words, is_permanent
from alerts.conditions import Priority

if TYPE_CHECKING:
    from apprise import NotifyBase
    from apprise.logger import NotifyLogEntry

# What each service calls the three priorities, unless the URL names one. With ntfy and Gotify the
# highest rings on; with Pushover, "high" comes through quiet hours, and its "emergency" would be
# repeated beside our own reminders.
_PRIORITIES = {
    "ntfy": {Priority.HIGH: "max", Priority.MEDIUM: "high", Priority.LOW: "low"},
    "ntfys": {Priority.HIGH: "max", Priority.MEDIUM: "high", Priority.LOW: "low"},
    "gotify": {Priority.HIGH: "emergency", Priority.MEDIUM: "high", Priority.LOW: "moderate"},
    "gotifys": {Priority.HIGH: "emergency", Priority.MEDIUM: "high", Priority.LOW: "moderate"},
    "pover": {Priority.HIGH: "high", Priority.MEDIUM: "normal", Priority.LOW: "moderate"},
}

_TYPES = {Priority.HIGH: "failure", Priority.MEDIUM: "warning", Priority.LOW: "info"}

# What Apprise logs of an HTTP status (of ntfy's own codes the first three digits are one), and what
# smtplib makes of an SMTP reply (RFC 5321, section 4.2.1: 4xx passes, 5xx stays).
_HTTP = re.compile(r"\berror=(\d{3})\d{0,2}\b")
_SMTP = re.compile(r"\((\d{3}), b|was refused: (\d{3})\b")
_EXCEPTIONS = ("Socket Exception", "I/O Exception", "Notification Exception", "SMTP")

_BETWEEN_S = 1.0

# The picture cannot be what is wrong with these: the door is shut, or closed for a while.
_NOT_THE_PICTURE = frozenset({401, 404, 408, 429})


class AppriseChannel:
    """Delivers to one service by its Apprise URL.

    Args:
        name: what the channel is called in the configuration.
        url: e.g. ``ntfys://ntfy.sh/topic``; it is a secret and is never shown.

    Raises:
        ValueError: Apprise does not understand the URL.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url
        self._threads = Threads(f"apprise {name}")
        _keep_to_itself()
        self._service(Priority.LOW, name)

    async def send(self, message: Message) -> None:
        """Deliver one message, with its picture where the service takes one.

        Raises:
            DeliveryError: it was not delivered, or not in time.
        """
        await self._threads.run(lambda: self._send(message))

    def _service(self, priority: Priority, thread: str) -> "NotifyBase":
        """The service, made anew for each message: it carries what is different for each."""
        import apprise  # noqa: PLC0415 - slow to load, and only who has such a channel needs it
        from apprise.plugins import url_to_dict  # noqa: PLC0415 - see above

        asset = apprise.AppriseAsset(
            app_id="Lead One",
            app_desc="Lead One",
            # Pictures from a server of others would tell it of every alarm.
            image_url_mask="",
            image_url_logo="",
            interpret_emojis=False,
            # A POST that is redirected becomes a GET, which any web page answers with 200: the
            # message would be taken for delivered.
            http_redirects=False,
            # Without this, Apprise hands the call to threads that are waited for at the end.
            service_timeout=0,
        )
        parts: dict[str, Any] = url_to_dict(self._url) or {}  # type: ignore[no-untyped-call]
        words = _PRIORITIES.get(parts.get("schema", ""))
        if words is not None and not parts.get("priority"):
            parts["priority"] = words[priority]
        service = apprise.Apprise.instantiate(parts, asset=asset) if parts else None
        if service is None:
            scheme = re.match(r"[a-z0-9.+-]{1,20}://", self._url)
            shown = f" that begins with {scheme[0]}" if scheme else ""
            raise ValueError(f"{self.name}: url: Apprise does not understand the one{shown}")
        # Retries are the caller's: it keeps them over a restart.
        service.retry = 0
        if service.socket_read_timeout == apprise.URLBase.socket_read_timeout:
            # Four seconds are short for a picture over a slow line; what comes after the time-out
            # has arrived all the same, and is then sent twice.
            service.socket_read_timeout = READ_S
        # Apprise waits 5.5 s between two requests of one message, such as its text and its picture.
        service.request_rate_per_sec = min(service.request_rate_per_sec, _BETWEEN_S)
        if "overflow" not in parts["qsd"]:
            # An SMS holds 160 characters.
            service.overflow_mode = apprise.OverflowMode.SPLIT
        if parts["schema"] in ("mailto", "mailtos"):
            from apprise.plugins.email import NotifyEmail  # noqa: PLC0415 - see above

            assert isinstance(service, NotifyEmail)
            # RFC 5322, section 3.6.4: messages that refer to the same one are one thread.
            root = f"<{re.sub(r'[^A-Za-z0-9.-]', '-', thread)}@leadone>"
            service.headers |= {"References": root, "In-Reply-To": root}
        return service

    def _send(self, message: Message) -> None:
        service = self._service(message.priority, message.thread)
        picture = message.picture if service.attachment_support else None
        failure = _notify(service, message, picture)
        if failure is not None and picture is not None and failure.perhaps_picture:
            failure = _notify(self._service(message.priority, message.thread), message, None)
        if failure is not None:
            told = f"{self.name} ({service.service_name}): {failure.text}"
            raise DeliveryError(told, permanent=failure.permanent)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a delivery failed.

    Attributes:
        text: in our own words.
        permanent: whether another try can only fail in the same way.
        perhaps_picture: whether one without the picture may not.
    """

    text: str
    permanent: bool
    perhaps_picture: bool


def _notify(service: "NotifyBase", message: Message, picture: bytes | None) -> _Failure | None:
    import apprise  # noqa: PLC0415 - see above
    from apprise.attachment.memory import AttachMemory  # noqa: PLC0415 - see above

    attached = apprise.AppriseAttachment()
    if picture is not None:
        png = AttachMemory(content=picture, name="ecg.png", mimetype="image/png")  # type: ignore[no-untyped-call]
        attached.add(png)
    with apprise.Apprise(service, asset=service.asset).notify(
        message.body,
        title=message.title,
        notify_type=_TYPES[message.priority],
        # As plain text, so that a service that reads HTML or Markdown is given it escaped.
        body_format=apprise.NotifyFormat.TEXT,
        attach=attached if picture is not None else None,
        log_level=logging.DEBUG,
    ) as result:
        # Not the result's own status: a URL with "optional=yes" never fails by that.
        if any(attempt for service_result in result for attempt in service_result):
            return None
        return _failure(result.logs())


def _failure(entries: "Iterable[NotifyLogEntry]") -> _Failure:
    """What the log of a failed delivery says."""
    lines = [
        entry.message
        for entry in entries
        # The rest holds the message itself.
        if entry.level in ("WARNING", "ERROR", "CRITICAL") or entry.message.startswith(_EXCEPTIONS)
    ]
    text = "\n".join(lines)
    if http := _HTTP.findall(text):
        status = int(http[-1])
        # A full disk or a proxy that lets nothing large through is 500 or 502 with some.
        return _Failure(
            f"answered {in_words(status)}", is_permanent(status), status not in _NOT_THE_PICTURE
        )
    if smtp := _SMTP.findall(text):
        reply = int(next(filter(None, smtp[-1])))
        # 530 to 538 are about who we are (RFC 4954, section 6).
        ours = 530 <= reply <= 538
        why = "user or password refused" if ours else f"the mail server answered {reply}"
        return _Failure(why, 500 <= reply < 600, not ours)
    if any(line.startswith("Socket Exception") for line in lines) or "onnection error" in text:
        return _Failure(f"no connection: {cause(text)}", permanent=False, perhaps_picture=False)
    return _Failure("not delivered; Apprise does not say why", False, perhaps_picture=True)


def _keep_to_itself() -> None:
    """Keep what Apprise and those under it log out of our log: there are tokens in it."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    if not logger.handlers:
        # Otherwise Python writes warnings to standard error itself.
        logger.addHandler(logging.NullHandler())
    # It is from these details that the cause is read.
    logger.setLevel(logging.DEBUG)
    for name in ("requests_oauthlib", "oauthlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hush()
