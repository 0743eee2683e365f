"""The MQTT broker: how to reach it, and what it means when that fails."""

import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

RECEIVE_MAXIMUM: Final = 10_000
"""Messages of QoS 1 that a broker may send before the first is acknowledged (MQTT 5.0, 3.1.2.11.3);
with MQTT 3.1.1 the broker's own configuration sets it. Many, since none is acknowledged while the
database is away: a broker that stopped sending would leave hearts unwatched."""

# How long a broker keeps our session, and what comes for it, while we are away.
_SESSION_S = 7 * 86400
_KEEPALIVE_S = 30
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and what it wants to see of us.

    Attributes:
        host: name or address.
        port: usually 1883, with TLS 8883.
        tls: whether the connection is encrypted and the broker must prove who it is.
        protocol: version of MQTT.
        client_id: names the session that the broker keeps for us.
        username: None to go without.
        password: of ``username``.
        ca: file of the authority that signed the broker's certificate; None for the system's.
        certificate: file of our own certificate, for brokers that ask for one.
        key: file of its private key.
    """

    host: str
    port: int
    tls: bool = False
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = "leadone"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class BrokerError(ValueError):
    """A file of the configuration that cannot be used; one line that names it and its key."""


def make_client(
    broker: Broker, *, suffix: str = "", persistent: bool, manual_ack: bool, reconnect: bool = True
) -> Client:
    """A client that is not connected yet; see ``connect``.

    Args:
        broker: to be connected to.
        suffix: set behind the client's id, for a second session.
        persistent: whether the broker keeps the session while we are away.
        manual_ack: whether incoming messages are acknowledged by ``Client.ack`` only.
        reconnect: whether the client's own thread connects again when the connection is lost.

    Raises:
        BrokerError: for a certificate or key that cannot be used.
    """
    five = broker.protocol == "5"
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=broker.client_id + suffix,
        clean_session=None if five else not persistent,
        protocol=MQTTv5 if five else MQTTv311,
        reconnect_on_failure=reconnect,
        manual_ack=manual_ack,
    )
    client.reconnect_delay_set(1, 60)
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.tls:
        client.tls_set_context(_tls(broker))
    return client


def connect(client: Client, broker: Broker, *, persistent: bool) -> None:
    """Open the connection and ask to be let in; blocks while it looks up, connects and encrypts.

    Raises:
        OSError: (``ssl.SSLError`` among them) if there is no way to the broker.
        ValueError: for a host name that cannot be one.
    """
    properties = None
    if broker.protocol == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        if persistent:
            properties.SessionExpiryInterval = _SESSION_S
    client.connect(
        broker.host,
        broker.port,
        keepalive=_KEEPALIVE_S,
        clean_start=not persistent if broker.protocol == "5" else 3,
        properties=properties,
    )


def join(client: Client) -> None:
    """Wait until the network thread of a client has sent what waits and ended."""
    thread = client._thread  # noqa: SLF001
    # paho looks at its thread twice, and the thread may end in between.
    with suppress(AttributeError):
        client.loop_stop()
    if thread is not None:
        thread.join()


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls(broker: Broker) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _Socket
    if broker.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = _Socket
        _use("mqtt.ca", broker.ca, context.load_verify_locations)
        _check_dates(broker.ca, context)
    if broker.certificate is not None and broker.key is not None:
        _use("mqtt.key", broker.key, _read)
        certificate = broker.certificate
        _use("mqtt.certificate", certificate, _read)
        _use(
            "mqtt.key",
            broker.key,
            lambda file: context.load_cert_chain(certificate, file, password=_no_password),
        )
    return context


def _read(file: Path) -> None:
    with file.open("rb") as opened:
        opened.read(1)


def _no_password() -> NoReturn:
    # Without this OpenSSL would ask for it on the terminal, and wait.
    raise BrokerError("mqtt.key: the key is locked by a password; store it without one")


def _use(key: str, file: Path, load: Callable[[Path], None]) -> None:
    try:
        load(file)
    except BrokerError:
        raise
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "is not the key of the certificate in mqtt.certificate"
        else:
            why = f"is not a {'key and certificate' if key == 'mqtt.key' else 'certificate'} in PEM"
        raise BrokerError(f"{key}: {str(file)!r} {why}") from None
    except OSError as error:
        raise BrokerError(f"{key}: {str(file)!r} cannot be read: {error.strerror}") from None


def _check_dates(file: Path, context: ssl.SSLContext) -> None:
    """Say that it is the authority that expired: OpenSSL would only say that some certificate."""
    ends = [str(ca["notAfter"]) for ca in context.get_ca_certs()]
    if ends and all(ssl.cert_time_to_seconds(end) < time.time() for end in ends):
        raise BrokerError(f"mqtt.ca: the certificate in {str(file)!r} expired on {ends[0]}")


# OpenSSL's numbers for a certificate that does not hold (x509_vfy.h).
_VERIFY: Final = {
    9: "is not valid yet: check the clocks of the broker and of this machine",
    10: "has expired, or that of its authority",
    18: "is signed by itself: give it as mqtt.ca if you trust it",
    19: "is signed by an authority that mqtt.ca does not hold",
    20: "is signed by an authority that mqtt.ca does not hold",
    21: "is signed by an authority that mqtt.ca does not hold",
    23: "is revoked",
    62: "is for another host name than the one in mqtt.url",
    64: "is for another address than the one in mqtt.url",
}
# What a broker says of our certificate (the alerts of TLS: RFC 8446, 6.2).
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "the broker wants a certificate of ours: set mqtt.certificate",
    "CERTIFICATE_EXPIRED": "the broker refuses our certificate (mqtt.certificate): it has expired",
    "CERTIFICATE_REVOKED": "the broker refuses our certificate (mqtt.certificate): it is revoked",
    "UNKNOWN_CA": "the broker refuses our certificate (mqtt.certificate): it does not know the "
    "authority that signed it",
    "CERTIFICATE": "the broker refuses our certificate (mqtt.certificate)",
    "HANDSHAKE_FAILURE": "the broker refuses the handshake: it may want a certificate of ours, set "
    "mqtt.certificate",
    "PROTOCOL_VERSION": "the broker speaks no version of TLS that is safe",
    "WRONG_VERSION_NUMBER": "the broker does not speak TLS on this port: check mqtt.url",
}
# Reason codes of MQTT 5.0, 2.4; paho gives those of 3.1.1 the same numbers.
_REASONS: Final = {
    132: "the broker does not speak this version of MQTT: set mqtt.protocol",
    133: "the broker does not take the client id: set mqtt.client_id",
    134: "wrong user name or password: check mqtt.username and mqtt.password",
    # Some brokers, Mosquitto among them, answer a wrong password so.
    135: "not authorized: check mqtt.username and mqtt.password, and what the broker lets them do",
    136: "the broker is not available",
    137: "the broker is busy",
    138: "the broker has banned this client",
    139: "the broker shuts down",
    141: "the broker did not hear from us in time",
    142: "another client connected with the same client id: set another mqtt.client_id in one",
    151: "the broker's quota is exceeded",
}

_KINDS: Final[dict[type[BaseException], str]] = {
    socket.gaierror: "no such host, or no network to look it up: check mqtt.url",
    UnicodeError: "the host in mqtt.url cannot be a name",
    ConnectionRefusedError: "connection refused: no broker listens at mqtt.url",
    TimeoutError: "no answer in time",
    ssl.SSLEOFError: "the broker closed the connection",
    ConnectionResetError: "the broker closed the connection",
}


def explain(trouble: BaseException | ReasonCode | str) -> str:
    """Say in one line why there is no connection, and what to look at.

    Args:
        trouble: what ``make_client`` or ``connect`` raised, what the broker answered, or a line of
            paho's log.
    """
    if isinstance(trouble, ReasonCode):
        return _REASONS.get(trouble.value, f"the broker answers: {str(trouble).lower()}")
    if isinstance(trouble, ssl.SSLCertVerificationError):
        why = _VERIFY.get(trouble.verify_code, f"does not hold: {trouble.verify_message}")
        return f"the broker's certificate {why}"
    text = str(trouble)
    if "SSL" in text:
        for alert, meaning in _ALERTS.items():
            if re.search(rf"[ _]{alert}\b", text):
                return meaning
    said = next((meaning for kind, meaning in _KINDS.items() if isinstance(trouble, kind)), None)
    said = said or str(getattr(trouble, "strerror", None) or text or type(trouble).__name__)
    return " ".join(said.encode("ascii", "backslashreplace").decode("ascii").split())[:_LONGEST]
