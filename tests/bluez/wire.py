"""Names of org.bluez, and its errors."""

from dbus_fast import Message

ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
SERVICE = "org.bluez.GattService1"
CHARACTERISTIC = "org.bluez.GattCharacteristic1"
AGENT_MANAGER = "org.bluez.AgentManager1"
AGENT = "org.bluez.Agent1"


class BluezError(Exception):
    """An error reply; ``name`` is what follows ``org.bluez.Error.``."""

    def __init__(self, name: str, text: str, *, dbus: bool = False) -> None:
        super().__init__(f"{name}: {text}")
        self.name = f"{'org.freedesktop.DBus' if dbus else 'org.bluez'}.Error.{name}"
        self.text = text

    def reply(self, message: Message) -> Message:
        return Message.new_error(message, self.name, self.text)


def failed(text: str) -> BluezError:
    return BluezError("Failed", text)


def att_error(code: int) -> BluezError:
    """An error of the attribute protocol as create_gatt_dbus_error() in src/gatt-client.c says."""
    named = {
        0x02: ("NotPermitted", "Read not permitted"),
        0x03: ("NotPermitted", "Write not permitted"),
        0x05: ("NotPermitted", "Not paired"),
        0x0C: ("NotPermitted", "Not paired"),
        0x0F: ("NotPermitted", "Not paired"),
        0x06: ("NotSupported", "Operation is not supported"),
        0x07: ("InvalidArguments", "Invalid offset"),
        0x08: ("NotAuthorized", "Operation Not Authorized"),
        0x0D: ("InvalidArguments", "Invalid Length"),
        0xFD: ("ImproperlyConfigured", "CCCD improperly configured"),
    }
    if code in named:
        return BluezError(*named[code])
    return failed(f"Operation failed with ATT error: {code:#04x}")
