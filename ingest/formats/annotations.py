"""Reads beat and rhythm annotations in the MIT format of WFDB (``.atr`` files).

Words of 16 bits, least significant byte first: a code in the upper six, in the lower ten the
samples since the previous annotation. Format and codes after
https://physionet.org/physiotools/wag/annot-5.htm and ``ecgcodes.h`` of the WFDB library.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.formats.recording import RecordingError

# Codes 1 to 41, in order; 15, 17 and the rest are not assigned.
_SYMBOLS = dict(enumerate("NLRaVFJASEj/Q~", 1)) | {16: "|"}
_SYMBOLS |= dict(enumerate('sT*D"=pB^t+u?![]en@xf()r', 18))
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Annotations of a record in order of time.

    Attributes:
        samples: int64 [n], the sample each is at.
        symbols: ``N``, ``V``, ``+`` ...; the number of the code where it has no symbol.
        texts: what is noted with each, such as ``(AFIB``; mostly empty.
    """

    samples: NDArray[np.int64]
    symbols: tuple[str, ...]
    texts: tuple[str, ...]


def read_annotations(path: Path) -> Annotations:
    """Read a file of annotations.

    Raises:
        RecordingError: it cannot be read, or breaks off (in an annotation or between two).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from None
    words = np.frombuffer(raw, "<u2", len(raw) // 2).tolist()
    samples: list[int] = []
    symbols: list[str] = []
    texts: list[str] = []
    now = at = 0
    while at < len(words) and words[at]:
        code, low = divmod(words[at], 1024)
        at += 1
        if code == _SKIP:
            now += _long(path, words[at : at + 2])
            at += 2
        elif code == _AUX:
            text = raw[2 * at : 2 * at + low]
            if len(text) < low or not texts:
                raise RecordingError(f"{path}: breaks off in a note, or begins with one")
            texts[-1] = text.rstrip(b"\0").decode("latin-1")
            at += (low + 1) // 2
        elif code not in {_NUM, _SUB, _CHN}:
            now += low
            samples.append(now)
            symbols.append(_SYMBOLS.get(code, str(code)))
            texts.append("")
    if at >= len(words):
        raise RecordingError(f"{path}: breaks off: no word of zeros, which marks the end")
    return Annotations(np.array(samples, dtype=np.int64), tuple(symbols), tuple(texts))


def _long(path: Path, words: list[int]) -> int:
    """A signed number of 32 bits whose upper half comes first."""
    if len(words) < 2:
        raise RecordingError(f"{path}: breaks off in a long interval")
    value = words[0] << 16 | words[1]
    return value - 2**32 if value >= 2**31 else value
