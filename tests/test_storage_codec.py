import importlib.util
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitor.storage.codec import CodecError, decode, encode

FLOATS, COUNTS = 0, 1


def same(a, b):
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def kind(blob):
    return COUNTS if blob[0] & 3 else FLOATS


def heart(n, seed=0):
    """A random walk in whole µV, as steep as an ECG at 130 Hz is between its peaks."""
    return np.rint(np.cumsum(np.random.default_rng(seed).normal(0, 15, n))).astype(np.float32) + 0


@given(arrays(np.uint32, st.integers(0, 300)))
def test_any_bits_come_back(bits):
    samples = bits.view(np.float32)
    assert same(decode(encode(samples)), samples)


@given(
    arrays(np.int32, st.integers(1, 300), elements=st.integers(-(2**23), 2**23)),
    st.sampled_from([1, 5, 100, 0.5, 4.88, 2.44140625, 0.4047, 1 / 3]),
    st.integers(0, 20),
)
def test_steps_come_back(counts, step, shift):
    samples = ((counts >> shift) * step).astype(np.float32)
    assert same(decode(encode(samples)), samples)


@pytest.mark.parametrize("step", [1, 5, 4.88, 2.44140625, 0.4047, 1 / 3])
@pytest.mark.parametrize("offset", [0, 5000])
def test_steps_are_found(step, offset):
    samples = ((heart(130) + offset) * np.float64(step)).astype(np.float32)
    blob = encode(samples)
    assert kind(blob) == COUNTS
    assert same(decode(blob), samples)
    assert len(blob) <= len(encode(heart(130) + offset)) + 8


@pytest.mark.parametrize(
    "samples", [[], [0], [-0.0], [np.nan], [7], [1, -0.0], [np.inf, 1], [0, 0, 0], [2**24, 0]]
)
def test_corners(samples):
    samples = np.array(samples, np.float32)
    assert same(decode(encode(samples)), samples)


def test_is_small():
    assert len(encode(np.zeros(130, np.float32))) <= 26
    assert len(encode(heart(130))) * 8 / 130 < 8.0
    noise = np.random.default_rng(0).normal(0, 100, 130).astype(np.float32)
    assert len(encode(noise)) < 4 * 130 + 20


@pytest.mark.data
def test_is_small_on_real_hearts(data: Path):
    spec = importlib.util.spec_from_file_location("ecgpack", data / "ecgpack.py")
    ecgpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ecgpack)
    bits = samples = 0
    for record in islice(ecgpack.read_shard(data / "cinc2017" / "part0.npz"), 20):
        x = record.signal[0]
        times = np.arange(0, len(x) / record.fs - 0.01, 1 / 130)
        chest = np.rint(np.interp(times, np.arange(len(x)) / record.fs, x)).astype(np.float32) + 0
        for at in range(0, len(chest) - 129, 130):
            chunk = chest[at : at + 130]
            blob = encode(chunk)
            assert same(decode(blob), chunk)
            bits += 8 * len(blob)
            samples += 130
    assert bits / samples < 8.5


@pytest.mark.parametrize(
    "samples", [heart(60), heart(60) * np.float32(4.88), heart(60) + np.float32(np.pi), heart(0)]
)
def test_truncated_blob(samples):
    blob = encode(samples)
    for size in range(len(blob)):
        with pytest.raises(CodecError):
            decode(blob[:size])


@pytest.mark.parametrize(
    "samples", [heart(60), heart(60) * np.float32(4.88), heart(60) + np.float32(np.pi)]
)
def test_garbled_blob_gives_no_other_samples(samples):
    blob = encode(samples)
    refused = 0
    for at in range(len(blob)):
        for bit in range(8):
            garbled = bytearray(blob)
            garbled[at] ^= 1 << bit
            try:
                assert same(decode(bytes(garbled)), samples)
            except CodecError:
                refused += 1
    # The bits that fill up a byte carry nothing, nor do the last ones of a step.
    assert refused > 0.9 * 8 * len(blob)


@given(st.binary(max_size=80))
def test_any_blob_gives_samples_or_an_error(tail):
    try:
        decode(b"\x10" + tail)
        decode(b"\x16" + tail)
    except CodecError:
        pass


@pytest.mark.parametrize("samples", [np.zeros(3), np.zeros((2, 3), np.float32), np.zeros(3, int)])
def test_only_float32_vectors(samples):
    with pytest.raises(CodecError, match="not float32"):
        encode(samples)
