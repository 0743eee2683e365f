"""Alarm tones on the gateway's own speaker.

The tones follow the ideas of IEC 60601-1-8: the more pulses, and the faster, the more urgent. A
high-priority burst is twice five pulses, in groups of three and two; medium is three, low two.
"""

import array
import io
import itertools
import math
import shutil
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alerts.channels.channel import DeliveryError, Message
from alerts.channels.command import file_in_memory, run
from alerts.conditions import Priority

_RATE_HZ = 22050
_PLAYERS = (("pw-play",), ("paplay",), ("aplay", "-q"))

# Which server or card to play on, where that is not the usual one.
_PLAYERS_NEED = (
    "ALSA_CARD",
    "ALSA_CONFIG_PATH",
    "PIPEWIRE_REMOTE",
    "PIPEWIRE_RUNTIME_DIR",
    "PULSE_COOKIE",
    "PULSE_RUNTIME_PATH",
    "PULSE_SERVER",
    "PULSE_SINK",
)

# A pulse of one frequency is hard to locate and is lost on one who does not hear it: four
# harmonics go with it.
_FUNDAMENTAL_HZ = 523.25
_HARMONICS = (1.0, 0.7, 0.5, 0.4, 0.3)
_PEAK = 0.9
_RISE = 0.2  # of a pulse, so that it does not click


@dataclass(frozen=True, slots=True)
class _Burst:
    """Pulses of one length, and the silence after each, in seconds."""

    pulse_s: float
    gaps_s: tuple[float, ...]


_FIVE = (0.1, 0.1, 0.35, 0.1)
_BURSTS = {
    Priority.HIGH: _Burst(0.15, (*_FIVE, 0.8, *_FIVE, 0.1)),
    Priority.MEDIUM: _Burst(0.2, (0.2, 0.2, 0.1)),
    Priority.LOW: _Burst(0.2, (0.2, 0.1)),
}


class SoundChannel:
    """Plays a tone for each message.

    Args:
        name: what the channel is called in the configuration.
        player: a program that plays the WAV file named in its last argument, with its arguments;
            by default ``pw-play``, ``paplay`` or ``aplay``, whichever is there.
    """

    def __init__(self, name: str, player: Sequence[str] | None = None) -> None:
        self.name = name
        self._player = None if player is None else tuple(player)

    async def send(self, message: Message) -> None:
        """Play the tone of the message's priority; when cancelled, fall silent.

        Raises:
            DeliveryError: nothing was heard; permanent if there is no player.
        """
        player = self._player or next((p for p in _PLAYERS if shutil.which(p[0])), None)
        if player is None:
            names = ", ".join(p[0] for p in _PLAYERS)
            told = f"{self.name}: no player ({names}) is installed: apt install alsa-utils"
            raise DeliveryError(told, permanent=True)
        try:
            # In memory: a full disk must silence nobody.
            with file_in_memory("tone", tone(message.priority)) as path:
                status, complaint = await run(self.name, (*player, path), also=_PLAYERS_NEED)
        except OSError as error:
            raise DeliveryError(f"{self.name}: no tone could be made: {error.strerror}") from None
        if status != 0:
            # A sound card may be busy, or not up yet.
            told = f"{self.name}: {Path(player[0]).name}: exit status {status}"
            raise DeliveryError(f"{told}: {complaint}" if complaint else told)


def tone(priority: Priority) -> bytes:
    """One burst as a WAV file: mono, 16 bits, 22050 Hz."""
    burst = _BURSTS[priority]
    pulse = _pulse(burst.pulse_s)
    samples = array.array("h")
    for gap_s in burst.gaps_s:
        samples.extend(pulse)
        samples.extend(itertools.repeat(0, round(gap_s * _RATE_HZ)))
    if sys.byteorder == "big":
        samples.byteswap()  # WAV is little-endian
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def _pulse(seconds: float) -> list[int]:
    n = round(seconds * _RATE_HZ)
    rise = _RISE * n
    scale = _PEAK * 32767 / sum(_HARMONICS)
    angle = 2 * math.pi * _FUNDAMENTAL_HZ / _RATE_HZ
    return [
        round(
            scale
            * min(1.0, i / rise, (n - i) / rise)
            * sum(a * math.sin(h * angle * i) for h, a in enumerate(_HARMONICS, 1))
        )
        for i in range(n)
    ]
