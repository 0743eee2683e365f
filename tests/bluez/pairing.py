"""Who answers when a pairing needs a yes: org.bluez.AgentManager1 (doc/org.bluez.Agent.rst)."""

from dataclasses import dataclass

from dbus_fast import Message, MessageType

from .endpoint import Endpoint, Method
from .wire import AGENT, AGENT_MANAGER, BluezError

# The number that both sides would show.
PASSKEY = 123_456


@dataclass(frozen=True, slots=True)
class _Agent:
    client: str
    path: str
    capability: str


class Agents:
    """The agents that clients have registered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._of: dict[str, _Agent] = {}
        # The last one is the one that is asked by default.
        self._defaults: list[str] = []

    def methods(self) -> dict[tuple[str, str], Method]:
        return {
            (AGENT_MANAGER, "RegisterAgent"): self._register,
            (AGENT_MANAGER, "UnregisterAgent"): lambda message: self.gone(self._own(message)),
            (AGENT_MANAGER, "RequestDefaultAgent"): self._request_default,
        }

    def _register(self, message: Message) -> None:
        client = message.sender
        path, capability = message.body
        if client in self._of:
            raise BluezError("AlreadyExists", "Already Exists")
        known = ("", "DisplayOnly", "DisplayYesNo", "KeyboardOnly", "NoInputNoOutput")
        if capability not in (*known, "KeyboardDisplay"):
            raise BluezError("InvalidArguments", "Invalid arguments in method call")
        self._of[client] = _Agent(client, path, capability or "KeyboardDisplay")
        if not self._defaults:
            self._defaults.append(client)

    def _request_default(self, message: Message) -> None:
        client = self._own(message)
        if client in self._defaults:
            self._defaults.remove(client)
        self._defaults.append(client)

    def clear(self) -> None:
        self._of.clear()
        self._defaults.clear()

    def gone(self, client: str) -> None:
        self._of.pop(client, None)
        if client in self._defaults:
            self._defaults.remove(client)

    def answers(self, client: str) -> bool:
        return self._agent(client) is not None

    async def ask(self, client: str, device: str, asks: str) -> None:
        """Ask the agent of the client that wants to pair, or the default one.

        Raises:
            BluezError: there is no agent, or it says no.
        """
        agent = self._agent(client)
        if agent is None:
            raise BluezError("AuthenticationFailed", "Authentication Failed")
        compares = asks == "confirmation" and agent.capability in (
            "DisplayYesNo",
            "KeyboardDisplay",
        )
        reply = await self._endpoint.call(
            Message(
                destination=agent.client,
                path=agent.path,
                interface=AGENT,
                member="RequestConfirmation" if compares else "RequestAuthorization",
                signature="ou" if compares else "o",
                body=[device, PASSKEY] if compares else [device],
            )
        )
        if reply.message_type is MessageType.ERROR:
            if reply.error_name == "org.bluez.Error.Canceled":
                raise BluezError("AuthenticationCanceled", "Authentication Canceled")
            raise BluezError("AuthenticationFailed", "Authentication Failed")

    def _agent(self, client: str) -> _Agent | None:
        default = self._defaults[-1] if self._defaults else ""
        return self._of.get(client) or self._of.get(default)

    def _own(self, message: Message) -> str:
        """The client, if the agent that it names is its own."""
        agent = self._of.get(message.sender)
        if agent is None or agent.path != message.body[0]:
            raise BluezError("DoesNotExist", "Does Not Exist")
        return agent.client
