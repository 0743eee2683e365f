"""Lossless compression of one chunk of samples: every float32 comes back bit for bit.

A recorder counts steps of its converter, so its microvolts are whole multiples of one step, 1 µV or
4.88 µV: these are stored as integers, differenced once or twice (whichever comes out smaller),
zigzagged and Rice coded. On chunks of a second that takes a fifth less room than byte planes and
zlib, whose tables do not pay for themselves on so few samples. Anything else (NaN, infinity, -0.0,
values between the steps) is stored as float bytes, shuffled and deflated.

Layout, little-endian: kind (1 byte, its high nibble the version) · n (varint) · body · CRC-32 of
the float32 samples (4 bytes). The body of a counted chunk: step (float64, left out when it is 1 µV)
· first count (zigzag varint) · Rice parameter k (1 byte) · the low k bits of the n-1 differences,
padded to a byte · their high parts in unary, padded to a byte.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_VERSION = 0x10
_FLOATS = 0
_FIRST_DIFFERENCES = 1
_SECOND_DIFFERENCES = 2
_STEP_FOLLOWS = 4

# No converter counts further, float32 holds no larger integer with all its neighbours, and
# zigzagged second differences still fit the 32 bits in which they are packed.
_COUNTS_END = 1 << 24
_DEFLATE_RATIO = 1032  # the most that deflate can shrink anything

_Signal = NDArray[np.float32]
_Integers = NDArray[np.int64]


class CodecError(ValueError):
    """Samples that cannot be stored, or a blob that does not hold what was stored."""


def encode(samples: _Signal) -> bytes:
    """Compress samples.

    Args:
        samples: float32 [n], in µV; any bit pattern.

    Returns:
        A blob for ``decode``.

    Raises:
        CodecError: ``samples`` is not a float32 vector.
    """
    if samples.dtype != np.float32 or samples.ndim != 1:
        raise CodecError(f"samples are {samples.dtype} {list(samples.shape)}, not float32 [n]")
    samples = np.ascontiguousarray(samples, dtype="<f4")
    counted = _counts(samples)
    if counted is None:
        kind, body = _FLOATS, zlib.compress(_planes(samples))
    else:
        kind, body = _encode_counts(*counted)
    head = bytes((_VERSION | kind,)) + _varint(len(samples))
    return head + body + zlib.crc32(samples.data).to_bytes(4, "little")


def decode(blob: bytes) -> _Signal:
    """Restore the samples of a blob.

    Args:
        blob: what ``encode`` returned.

    Returns:
        float32 [n], in µV.

    Raises:
        CodecError: the blob is truncated, garbled or of an unknown version.
    """
    if not blob or blob[0] & 0xF0 != _VERSION:
        raise CodecError(f"unknown sample format {blob[:1].hex() or '(empty)'}")
    try:
        n, at = _read_varint(blob, 1)
        body = blob[at:-4]
        kind = blob[0] & 0x0F
        samples = _decode_floats(body, n) if kind == _FLOATS else _decode_counts(body, n, kind)
    except (IndexError, ValueError, struct.error, zlib.error) as error:
        raise CodecError(f"garbled sample blob of {len(blob)} bytes: {error}") from error
    if zlib.crc32(samples.data) != int.from_bytes(blob[-4:], "little"):
        raise CodecError(f"garbled sample blob of {len(blob)} bytes: wrong checksum")
    return samples.astype(np.float32, copy=False)


def _counts(samples: _Signal) -> tuple[_Integers, float] | None:
    """The samples as integers and the step in µV that restores them exactly; None if none does."""
    # Written so that NaN fails it too.
    if not (len(samples) and np.abs(samples).max() < _COUNTS_END):
        return None
    whole = np.rint(samples)
    if np.array_equal(whole, samples):
        counts = whole.astype(np.int64)
        step = float(np.gcd.reduce(counts) or 1)
    else:
        found = _step(samples)
        if found is None:
            return None
        step = found
    counts = np.rint(samples / np.float64(step)).astype(np.int64)
    restored = _from_counts(counts, step)
    if not np.array_equal(restored.view(np.uint32), samples.view(np.uint32)):
        return None
    return counts, step


def _from_counts(counts: _Integers, step: float) -> _Signal:
    return (counts * step).astype("<f4")


def _step(samples: _Signal) -> float | None:
    """The step of which all samples are multiples, each then rounded to float32; None if none is.

    Euclid's algorithm on all samples at once, from the small to the large: a remainder that is more
    than rounding is the next candidate, and a larger multiple measures the candidate more exactly.
    """
    magnitudes = np.unique(np.abs(samples))
    magnitudes = magnitudes[magnitudes > 0]
    half_ulp = np.spacing(magnitudes).astype(np.float64) / 2
    exact = magnitudes.astype(np.float64)
    # The differences are multiples too, and small ones even where the baseline is far from zero.
    multiples = np.unique(np.concatenate((exact, exact[1:] - exact[0])))
    rounding = error = 4 * half_ulp[-1]
    step = min(multiples[0], np.diff(exact).min(initial=exact[-1]))
    sure = 0
    while step > 4 * rounding:
        # Beyond this it is unsure which multiple of the candidate a value is.
        reach = int(np.searchsorted(multiples, step * step / (4 * error)))
        if reach <= sure:
            return None
        near = multiples[:reach]
        counts = np.rint(near / step)
        remainders = np.abs(near - counts * step)
        off = np.flatnonzero(remainders > counts * error + rounding)
        if len(off):
            first = off[0]  # the one known most exactly
            step, error, sure = remainders[first], counts[first] * error + rounding, 0
        elif reach < len(multiples):
            step, error, sure = near[-1] / counts[-1], rounding / counts[-1], reach
        else:
            break
    else:
        return None
    # Every sample allows an interval of steps that round to it; take the middle of what all allow.
    counts = np.rint(exact / step)
    return float((((exact - half_ulp) / counts).max() + ((exact + half_ulp) / counts).min()) / 2)


def _encode_counts(counts: _Integers, step: float) -> tuple[int, bytes]:
    first = counts[1:] - counts[:-1]
    second = first.copy()
    second[1:] -= first[:-1]
    kind, differences = _FIRST_DIFFERENCES, first
    if np.abs(second).sum() < np.abs(first).sum():
        kind, differences = _SECOND_DIFFERENCES, second
    head = b""
    if step != 1:
        kind |= _STEP_FOLLOWS
        head = struct.pack("<d", step)
    start = int(counts[0])
    head += _varint(start << 1 if start >= 0 else ~(start << 1))
    return kind, head + _rice((differences << 1) ^ (differences >> 63))


def _decode_counts(body: bytes, n: int, kind: int) -> _Signal:
    at, step = 0, 1.0
    if kind & _STEP_FOLLOWS:
        (step,), at = struct.unpack_from("<d", body), 8
    start, at = _read_varint(body, at)
    zigzag = _unrice(body[at:], n - 1)
    counts = np.empty(n, np.int64)
    counts[0] = (start >> 1) ^ -(start & 1)
    counts[1:] = (zigzag >> 1) ^ -(zigzag & 1)
    if kind & ~_STEP_FOLLOWS == _SECOND_DIFFERENCES:
        np.cumsum(counts[1:], out=counts[1:])
    np.cumsum(counts, out=counts)
    with np.errstate(all="ignore"):  # of a garbled step; the checksum tells
        return _from_counts(counts, step)


def _rice(values: _Integers) -> bytes:
    """Rice code of non-negative integers below 2³²: parameter, low bits, unary high parts."""
    if not len(values):
        return b"\0"
    # The parameter that suits geometrically distributed values of this mean.
    k = max(0, (int(values.sum()) * 7 // (10 * len(values))).bit_length())
    octets = values.astype("<u4").view(np.uint8).reshape(-1, 4)
    low = np.unpackbits(octets, axis=1, bitorder="little")
    ends = np.cumsum((values >> k) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 1
    return bytes((k,)) + np.packbits(low[:, :k]).tobytes() + np.packbits(unary).tobytes()


def _unrice(body: bytes, n: int) -> _Integers:
    k, size = body[0], (n * body[0] + 7) // 8
    packed = np.frombuffer(body, np.uint8, offset=1)
    if k > 32 or n < 0 or n > 8 * len(packed):
        raise ValueError(f"no {n} differences of {k} low bits in {len(packed)} bytes")
    ends = np.flatnonzero(np.unpackbits(packed[size:]))
    if len(ends) != n:
        raise ValueError(f"{len(ends)} differences instead of {n}")
    bits = np.zeros((n, 32), np.uint8)
    bits[:, :k] = np.unpackbits(packed[:size], count=n * k).reshape(n, k)
    low = np.packbits(bits, axis=1, bitorder="little").view("<u4").reshape(n)
    high: _Integers = np.diff(ends, prepend=-1) - 1
    return (high << k) | low.astype(np.int64)


def _decode_floats(body: bytes, n: int) -> _Signal:
    if 4 * n > _DEFLATE_RATIO * len(body):
        raise ValueError(f"no {n} floats in {len(body)} bytes")
    inflate = zlib.decompressobj()
    planes = inflate.decompress(body, 4 * n + 1)
    if len(planes) != 4 * n or not inflate.eof:
        raise ValueError(f"{len(planes)} bytes instead of {4 * n}")
    octets = np.frombuffer(planes, np.uint8).reshape(4, n)
    return np.ascontiguousarray(octets.T).view("<f4").reshape(n)


def _planes(samples: _Signal) -> bytes:
    """All first bytes, then all second ones, …: the exponents side by side deflate well."""
    return samples.view(np.uint8).reshape(-1, 4).T.tobytes()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where the next field begins."""
    value = shift = 0
    while shift < 63:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 63 bits")
