"""The one function that prepares signals for the networks."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.conditioning import CLIP, condition


def sine(hz: float, rate: float, seconds: float = 10) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return 500 * np.sin(2 * np.pi * hz * t)


def prepared(x: np.ndarray, rate: float) -> np.ndarray:
    return condition(x, rate, target_rate=100, length=1000)


@pytest.mark.parametrize("rate", [100, 125, 128, 129.9, 130, 250, 300, 360, 500, 1000])
def test_a_wave_in_the_band_keeps_its_place_at_any_rate(rate: float) -> None:
    out = prepared(sine(10, rate), rate)
    expected = np.sqrt(2) * np.sin(2 * np.pi * 10 * np.arange(1000) / 100)
    assert np.abs(out - expected)[100:900].max() < 0.02


@pytest.mark.parametrize(("hz", "gain"), [(0.3, 0.01), (1.0, 0.5), (5, 1.0), (30, 1.0), (47, 0.5)])
def test_the_band_is_1_to_47_hz(hz: float, gain: float) -> None:
    """Against a carrier of known amplitude, since z-scoring hides absolute gain."""
    rate = 500.0
    out = prepared(sine(10, rate) + sine(hz, rate), rate)
    spectrum = np.abs(np.fft.rfft(out[0:1000]))
    f = np.fft.rfftfreq(1000, 0.01)
    near = (f > hz - 0.25) & (f < hz + 0.25)
    carrier = (f > 9.75) & (f < 10.25)
    measured = np.sqrt((spectrum[near] ** 2).sum() / (spectrum[carrier] ** 2).sum())
    assert measured == pytest.approx(gain, abs=0.06)


def test_agrees_with_a_forward_backward_butterworth_filter() -> None:
    """scipy's filtfilt and resample_poly, the textbook way, away from the edges."""
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=5000)) * 20
    sos = scipy.signal.butter(2, 1.0, "highpass", fs=500, output="sos")
    y = scipy.signal.sosfiltfilt(sos, x)
    sos = scipy.signal.butter(16, 47.0, "lowpass", fs=500, output="sos")
    y = scipy.signal.sosfiltfilt(sos, y)[::5]
    y = (y - y.mean()) / y.std()
    assert np.corrcoef(prepared(x, 500)[100:900], y[100:900])[0, 1] > 0.999


def test_mains_hum_and_offset_do_not_reach_the_network() -> None:
    rate = 300.0
    clean = sine(8, rate)
    dirty = clean + 5000 + 2 * sine(60, rate)
    difference = np.abs(prepared(dirty, rate) - prepared(clean, rate))
    assert difference[50:950].max() < 0.05
    # The very edge cannot know how the hum went on; half a second further in nothing is left of it.
    assert difference.mean() < 0.02


def test_scale_and_unit_do_not_matter() -> None:
    x = np.random.default_rng(2).normal(size=1300)
    assert np.allclose(prepared(x, 130), prepared(x * 1000, 130), atol=1e-4)


def test_a_short_signal_is_followed_by_zeros() -> None:
    out = prepared(sine(5, 250, 6), 250)
    assert out[:600].std() == pytest.approx(1, abs=0.01)
    assert not out[600:].any()


def test_a_flat_signal_is_zeros() -> None:
    assert not prepared(np.full(1300, 1234.5), 130).any()


def test_leads_are_scaled_apart() -> None:
    two = np.stack([sine(5, 500), 7 * sine(9, 500)])
    out = condition(two, 500, target_rate=100, length=1000)
    assert out.shape == (2, 1000)
    assert out.std(axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert np.allclose(out[1], prepared(two[1], 500), atol=1e-5)


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0]), np.array([1.0, np.nan, 2.0])])
def test_what_is_no_signal_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two or more finite samples"):
        prepared(bad, 130)


@given(
    arrays(np.float32, st.integers(2, 700), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(50, 4000),
)
def test_any_finite_signal_gives_finite_bounded_output(x: np.ndarray, rate: float) -> None:
    out = prepared(x, rate)
    assert out.shape == (1000,)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= CLIP
