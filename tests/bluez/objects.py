"""Objects, interfaces and properties on D-Bus, as BlueZ publishes them from ``/``."""

from collections.abc import Callable
from typing import Any

from dbus_fast import Message, Variant

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"

Interfaces = dict[str, dict[str, Variant]]


class Objects:
    """The tree; every change of it is a signal."""

    def __init__(self, send: Callable[[Message], Any]) -> None:
        self._send = send
        self._tree: dict[str, Interfaces] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._tree

    def add(self, path: str, interfaces: Interfaces) -> None:
        self._tree[path] = interfaces
        self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def remove(self, path: str) -> None:
        """Remove the object and everything below it, the deepest first."""
        below = [at for at in self._tree if at == path or at.startswith(f"{path}/")]
        for at in sorted(below, key=len, reverse=True):
            gone = list(self._tree.pop(at))
            self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [at, gone])

    def update(
        self, path: str, interface: str, changed: dict[str, Variant], removed: tuple[str, ...] = ()
    ) -> None:
        if path not in self._tree:
            return
        properties = self._tree[path][interface]
        properties.update(changed)
        for name in removed:
            properties.pop(name, None)
        self._signal(
            path,
            PROPERTIES,
            "PropertiesChanged",
            "sa{sv}as",
            [interface, changed, list(removed)],
        )

    def value(self, path: str, interface: str, name: str) -> Any:
        return self._tree[path][interface][name].value

    def interfaces(self, path: str) -> Interfaces:
        return self._tree[path]

    def managed(self) -> dict[str, Interfaces]:
        return self._tree

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list) -> None:
        self._send(Message.new_signal(path, interface, member, signature=signature, body=body))
