"""What is wrong with a link, told from an exception, and what a person can do about it."""

from dataclasses import dataclass
from enum import StrEnum

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)
from bleak_retry_connector import BleakAbortedError, BleakConnectionError, BleakNotFoundError

from ingest.ble.device import DeviceError

# What BlueZ and the attribute protocol say when a bond is missing or no longer the device's
# (Bluetooth Core 5.4, vol. 3 part F, 3.4.1.1: 0x05, 0x08, 0x0c, 0x0f).
_BOND = (
    "authentication",
    "authorization",
    "encryption",
    "not paired",
    "notauthorized",
    "key missing",
    "pin or key",
    "0x05",
    "0x0f",
)
# A cause is stored with its gap, whose columns are 255 characters wide.
_LONGEST = 200

_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
_NO_SERVICE = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected")


class Kind(StrEnum):
    """What keeps samples from flowing."""

    NO_BLUETOOTH = "no bluetooth"
    NOT_SEEN = "not seen"
    REFUSED = "refused"
    BOND = "bond"
    DEVICE = "device"
    SILENT = "silent"
    LOST = "lost"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong.

    Attributes:
        kind: what.
        cause: the same for the log and the gap it leaves, e.g. ``link lost``.
        advice: what to do, for people.
    """

    kind: Kind
    cause: str
    advice: str


NOT_SEEN = Trouble(
    Kind.NOT_SEEN,
    "strap not seen",
    "check that the strap is worn and its electrodes are wet, that it is within reach, and that no "
    "phone or watch is connected to it",
)
SILENT = Trouble(
    Kind.SILENT, "strap connected but silent", "take the strap off for a minute and put it on again"
)
_AWAY = Trouble(
    Kind.NO_BLUETOOTH,
    "bluetooth service away",
    "the Bluetooth service does not answer: systemctl restart bluetooth",
)
_NOT_ALLOWED = Trouble(
    Kind.NO_BLUETOOTH,
    "not allowed to use bluetooth",
    "sudo usermod -aG bluetooth leadone, then: sudo systemctl restart leadone",
)
_OFF = Trouble(Kind.NO_BLUETOOTH, "bluetooth is off", "switch it on: bluetoothctl power on")
_REFUSED = Trouble(
    Kind.REFUSED,
    "connection refused",
    "another phone, watch or app may be connected to the strap: close it there",
)
_PAIR = "pair it again: leadone pair ADDRESS --patient ID"
STALE_BOND = Trouble(Kind.BOND, "strap does not know this gateway any more", _PAIR)
LOST = Trouble(Kind.LOST, "link lost", "bring the strap and the gateway nearer to each other")


def trouble(error: BaseException, stage: str) -> Trouble:
    """Tell what is wrong from what was raised.

    Args:
        error: from bleak, its retry connector, a device, or a time-out.
        stage: what was being done, named in the cause.
    """
    text = f"{error} {error.__cause__ or ''}"
    if isinstance(error, DeviceError):
        found = Trouble(Kind.DEVICE, f"{stage}: strap refused", str(error))
    elif isinstance(error, BleakBluetoothNotAvailableError):
        found = _no_bluetooth(error)
    elif _DENIED in text:
        found = _NOT_ALLOWED
    elif isinstance(error, BleakError) and any(word in text.lower() for word in _BOND):
        found = Trouble(Kind.BOND, f"{stage}: strap wants to be paired", _PAIR)
    elif isinstance(error, TimeoutError):
        cause = f"{stage}: no answer in time"
        found = Trouble(Kind.OTHER, cause, "bring the strap nearer to the gateway")
    elif isinstance(error, OSError | EOFError) or any(word in text for word in _NO_SERVICE):
        found = _AWAY
    elif isinstance(error, BleakNotFoundError):
        found = NOT_SEEN
    elif "NotReady" in text:
        found = _OFF
    elif stage != "searching" and isinstance(
        error, BleakAbortedError | BleakDBusError | BleakConnectionError
    ):
        found = _REFUSED
    else:
        cause = " ".join(f"{stage}: {str(error) or type(error).__name__}".split())[:_LONGEST]
        found = Trouble(Kind.OTHER, cause, "leadone goes on trying by itself")
    return found


def _no_bluetooth(error: BleakBluetoothNotAvailableError) -> Trouble:
    if error.reason is BleakBluetoothNotAvailableReason.POWERED_OFF:
        return Trouble(Kind.NO_BLUETOOTH, "bluetooth is off", "switch it on: bluetoothctl power on")
    return Trouble(
        Kind.NO_BLUETOOTH,
        "no bluetooth adapter",
        "plug the adapter in, or pair the strap with another one (bluetoothctl list, --adapter)",
    )
