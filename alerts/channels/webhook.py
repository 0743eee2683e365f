"""A signed HTTP request to a URL of one's own.

The signature is an HMAC (RFC 2104) with SHA-256 over the time stamp, a full stop and the body, all
as sent; a receiver that checks it, and that the time stamp is recent, can tell a message from a
forged or a replayed one.
"""

import hashlib
import hmac
import json
import logging
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from alerts.channels.channel import DeliveryError, Message, document
from alerts.channels.threads import Threads

CONNECT_S = 5.0
READ_S = 10.0
"""How long to wait for a connection, and for the answer (between two pieces of it), in seconds."""

LONGEST_WAIT_S = 3600.0
"""No receiver may put off an alarm for longer than this, whatever its Retry-After says."""

# Those of the 4xx that another try may mend: time-out, conflict with one still in progress, locked,
# too early, too many requests. All others stay as they are.
_PASSING = frozenset({408, 409, 421, 423, 425, 429})


class WebhookChannel:
    """Posts each message as JSON, signed.

    Headers: ``X-Leadone-Timestamp`` (seconds since 1970), ``X-Leadone-Signature``
    (``sha256=`` and the HMAC in hexadecimal digits) and ``Idempotency-Key`` (the message's key).

    Args:
        name: what the channel is called in the configuration.
        url: ``https://`` or ``http://``; where it redirects to is not followed, for the message
            was signed and meant for this address.
        secret: the key of the signature.
        now_s: UTC time, in seconds since 1970.
        connect_s: longest wait for a connection, in seconds.
        read_s: longest wait for an answer, in seconds.

    Raises:
        ValueError: the URL is none, or the secret is empty.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secret: str,
        *,
        now_s: Callable[[], float] = time.time,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
    ) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"{name}: url: must be http:// or https:// with a host")
        if not secret:
            raise ValueError(f"{name}: secret: must not be empty")
        self.name = name
        self._url = url
        self._secret = secret.encode()
        self._now_s = now_s
        self._times = (connect_s, read_s)
        self._threads = Threads(f"webhook {name}")
        hush()

    async def send(self, message: Message) -> None:
        """Post one message.

        Raises:
            DeliveryError: the answer was not 2xx, or there was none.
        """
        content = document(message) | {
            "picture": None if message.picture is None else b64encode(message.picture).decode()
        }
        body = json.dumps(content, ensure_ascii=False).encode()
        await self._threads.run(lambda: self._post(message.key, body))

    def _post(self, key: str, body: bytes) -> None:
        import requests  # noqa: PLC0415 - only who has a webhook needs it

        now = str(int(self._now_s()))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "leadone",
            "Idempotency-Key": key,
            "X-Leadone-Timestamp": now,
            "X-Leadone-Signature": f"sha256={signature(self._secret, now, body)}",
        }
        try:
            # As a stream, the body of the answer is not read: only the status counts.
            with requests.post(
                self._url,
                data=body,
                headers=headers,
                timeout=self._times,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status = answer.status_code
                retry_after = answer.headers.get("Retry-After")
        except requests.RequestException as error:
            # Its text has the whole URL.
            raise DeliveryError(f"{self.name}: {_why(error)}") from None
        if 200 <= status < 300:
            return
        told = f"{self.name}: answered {in_words(status)}"
        if 300 <= status < 400:
            raise DeliveryError(f"{told}: give the address that it redirects to", permanent=True)
        if is_permanent(status):
            raise DeliveryError(told, permanent=True)
        raise DeliveryError(told, retry_after_s=_seconds(retry_after, self._now_s()))


def hush() -> None:
    """Keep URLs out of the log: at debug level, urllib3 writes down every path it asks for."""
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The HMAC of a request, in hexadecimal digits."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def in_words(status: int) -> str:
    """An HTTP status with its name, e.g. ``429 Too Many Requests``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def is_permanent(status: int) -> bool:
    """Whether an HTTP status says that another try can only fail in the same way.

    A redirect does: it is not followed.
    """
    return 300 <= status < 500 and status not in _PASSING


def _seconds(retry_after: str | None, now_s: float) -> float | None:
    """What a Retry-After header says (RFC 9110, section 10.2.3): seconds, or a date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # A number of many digits is not worth being turned into an integer.
        wait_s = float(text[:12]) if len(text) <= 12 else LONGEST_WAIT_S
    else:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        # A date without a zone is in UTC.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        wait_s = (date - datetime.fromtimestamp(now_s, tz=UTC)).total_seconds()
    return min(max(wait_s, 0.0), LONGEST_WAIT_S)


def _why(error: Exception) -> str:
    import requests  # noqa: PLC0415 - see above

    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted, or TLS failed"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.Timeout):
        return "connected, but no answer in time"
    return f"no connection: {cause(str(error))}"


_CAUSES = (
    (("timed out", "timeout"), "no answer in time"),
    (("connection refused", "errno 111"), "connection refused"),
    (("certificate", "ssl", "tls"), "its certificate is not trusted, or TLS failed"),
    (
        (
            "nameresolution",
            "name or service not known",
            "name resolution",
            "getaddrinfo",
            "nodename",
        ),
        "no host of that name is known",
    ),
    (("unreachable", "no route"), "network or host out of reach"),
    (("reset", "aborted", "closed", "disconnected", "broken pipe", "badstatus"), "cut off"),
)


def cause(text: str) -> str:
    """What the text of a network error means, in words that hold nothing of the text itself."""
    folded = text.casefold()
    for marks, words in _CAUSES:
        if any(mark in folded for mark in marks):
            return words
    return "the network failed"
