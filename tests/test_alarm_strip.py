"""The strip, measured with a ruler: 6 pixels are a millimetre."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFont

from alerts.strip import strip_png

MM = 6
LEFT, TOP, ROW = 15 * MM, 12 * MM, 60 * MM
MIDDLE = TOP + ROW // 2
RATE = 250


def pixels(png: bytes) -> NDArray[np.int16]:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(np.int16)


def ink(picture: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where the picture is black, or nearly so."""
    return picture.max(axis=2) < 110


def red(picture: NDArray[np.int16]) -> NDArray[np.bool_]:
    return (picture[:, :, 0] > 150) & (picture[:, :, 1:].max(axis=2) < 60)


def trace(png: bytes) -> NDArray[np.bool_]:
    """The ink on the paper, from the first sample on, for ten seconds less half a millimetre."""
    return ink(pixels(png))[TOP : TOP + ROW, LEFT : LEFT + 250 * MM - MM // 2]


def flat(seconds: float = 10, rate: int = RATE) -> NDArray[np.float32]:
    return np.zeros(round(seconds * rate), np.float32)


def test_its_size_suits_a_phone() -> None:
    noise = np.random.default_rng(3).normal(0, 500, 10 * 1000)
    png = strip_png(noise, 1000, title=["Grandpa Karl: atrial fibrillation", "Sat 21 Nov 03:05"])
    height, width, _ = pixels(png).shape
    assert (width, height) == (1620, 480)
    assert len(png) < 100_000


def test_a_second_is_25_mm_and_a_millivolt_10() -> None:
    signal = flat()
    signal[2 * RATE] = 1000  # a spike of 1 mV at 2 s
    signal[5 * RATE] = -500
    shown = trace(strip_png(signal, RATE))
    tops = shown.argmax(axis=0)
    line = ROW // 2
    assert abs(int(tops[: 100 * MM].min()) - (line - 10 * MM)) <= 2
    assert abs(int(tops[: 100 * MM].argmin()) - 2 * 25 * MM) <= 2
    bottoms = ROW - 1 - shown[::-1].argmax(axis=0)
    assert abs(int(bottoms.max()) - (line + 5 * MM)) <= 2
    assert abs(int(bottoms[: 10 * 25 * MM].argmax()) - 5 * 25 * MM) <= 2


@pytest.mark.parametrize("rate", [100, 130, 512, 1000])
def test_the_rate_of_the_device_does_not_change_the_scale(rate: int) -> None:
    signal = flat(rate=rate)
    signal[8 * rate :] = 1000
    shown = trace(strip_png(signal, rate))
    high = shown[: ROW // 2 - 5 * MM].any(axis=0)
    assert abs(int(high.argmax()) - 8 * 25 * MM) <= 3 + 25 * MM / rate


def test_the_calibration_pulse_is_a_millivolt_and_a_fifth_of_a_second() -> None:
    pulse = ink(pixels(strip_png(flat(), RATE)))[TOP : TOP + ROW, : LEFT - MM]
    rows, columns = (
        np.flatnonzero(pulse.any(axis=1)),
        np.flatnonzero(pulse[: ROW // 2 - 5 * MM].any(axis=0)),
    )
    assert abs(int(rows[-1] - rows[0]) - 10 * MM) <= 3
    assert abs(int(columns[-1] - columns[0]) - 5 * MM) <= 3


def test_the_grid_has_a_line_every_millimetre_and_a_thick_one_every_five() -> None:
    picture = pixels(strip_png(np.full(10, np.nan, np.float32), RATE))
    row = picture[TOP + 3, LEFT + 60 * MM : LEFT + 80 * MM, 1]  # between two lines across
    dark = row < row.max()
    assert [bool(dark[i * MM]) for i in range(20)] == [True] * 20
    assert not dark[3::MM].any()
    thickest = row.min()
    assert [i for i in range(20) if row[i * MM] == thickest] == [0, 5, 10, 15]


def test_a_gap_stays_blank() -> None:
    signal = flat()
    signal[3 * RATE : 4 * RATE] = np.nan
    signal[6 * RATE : 7 * RATE] = np.inf
    shown = trace(strip_png(signal, RATE)).any(axis=0)
    at = 25 * MM
    assert all(shown[[at // 2, 5 * at, 9 * at]])
    for start in (3, 6):
        assert not shown[start * at + 3 : (start + 1) * at - 3].any()


def test_nothing_but_gaps_says_so() -> None:
    none = pixels(strip_png(np.full(10 * RATE, np.nan), RATE))
    assert red(none)[TOP : TOP + 8 * MM].any()
    assert not red(pixels(strip_png(flat(), RATE))).any()


def test_a_sample_by_itself_is_seen() -> None:
    signal = np.full(10 * RATE, np.nan)
    signal[5 * RATE] = 0
    shown = trace(strip_png(signal, RATE)).any(axis=0)
    assert abs(int(np.flatnonzero(shown).mean()) - 5 * 25 * MM) <= 1


def test_every_r_peak_has_a_tick() -> None:
    picture = pixels(strip_png(flat(), RATE, [0.5, 2.0, 9.5, 11.0, -1.0]))
    blue = (picture[:, :, 2] > picture[:, :, 0] + 80)[TOP + ROW - 2 * MM]
    columns = np.flatnonzero(blue)
    starts = columns[np.concatenate(([True], np.diff(columns) > 1))]
    assert [round((int(c) - LEFT) / (25 * MM), 1) for c in starts] == [0.5, 2.0, 9.5]


def test_of_a_longer_recording_the_end_is_drawn() -> None:
    signal = flat(25)
    signal[16 * RATE : 16 * RATE + 2] = 1000  # 1 s into the last ten
    png = strip_png(signal, RATE, [16.0, 3.0])
    assert abs(int(trace(png).argmax(axis=0)[: 2 * 25 * MM].argmin()) - 25 * MM) <= 2
    picture = pixels(png)
    blue = (picture[:, :, 2] > picture[:, :, 0] + 80)[TOP + ROW - 2 * MM]
    assert abs(int(np.flatnonzero(blue).mean()) - (LEFT + 25 * MM)) <= 1


@pytest.mark.parametrize(("millivolts", "pulse_mm"), [(5, 10), (9, 5), (20, 2.5)])
def test_a_signal_too_large_is_drawn_smaller_and_the_pulse_with_it(
    millivolts: float, pulse_mm: float
) -> None:
    signal = (np.sin(np.arange(10 * RATE) / 20) * 500 * millivolts).astype(np.float32)
    png = strip_png(signal, RATE)
    pulse = ink(pixels(png))[TOP : TOP + ROW, : LEFT - MM]
    rows = np.flatnonzero(pulse.any(axis=1))
    assert abs(int(rows[-1] - rows[0]) - pulse_mm * MM) <= 3
    assert not red(pixels(png)).any()


def test_a_jerk_leaves_the_beats_readable_and_is_marked() -> None:
    signal = flat()
    signal[::RATE] = 1000
    signal[4 * RATE : 4 * RATE + 20] = 50_000
    signal[7 * RATE : 7 * RATE + 20] = -50_000
    png = strip_png(signal, RATE)
    marked = red(pixels(png))
    rows, columns = np.nonzero(marked)
    assert set(rows) == set(range(TOP, TOP + 5)) | set(range(TOP + ROW - 4, TOP + ROW + 1))
    up = columns[rows < MIDDLE]
    down = columns[rows > MIDDLE]
    for found, second in ((up, 4), (down, 7)):
        assert abs(int(found.min()) - (LEFT + second * 25 * MM)) <= 1
        assert abs(int(found.max()) - (LEFT + (second + 0.08) * 25 * MM)) <= 1
    tops = trace(png).argmax(axis=0)
    assert abs(int(tops[20 * MM : 30 * MM].min()) - (ROW // 2 - 10 * MM)) <= 2


def test_a_signal_far_from_zero_is_in_the_middle() -> None:
    shown = trace(strip_png(flat() + np.float32(80_000), RATE))
    assert abs(int(np.flatnonzero(shown.any(axis=1)).mean()) - ROW // 2) <= 1


def test_a_machine_without_the_font_writes_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with_font = strip_png(flat(), RATE, title=["Åsa – Jo"])

    truetype = ImageFont.truetype

    def only_what_pillow_brings(font: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return truetype(font, *rest, **named)

    monkeypatch.setattr(ImageFont, "truetype", only_what_pillow_brings)
    without = strip_png(flat(), RATE, title=["Åsa – Jo"])
    plain = strip_png(flat(), RATE, title=["Asa - Jo"])
    assert without == plain
    for png in (with_font, without):
        assert ink(pixels(png))[: 6 * MM].any()


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="rate: must be a positive number"):
        strip_png(flat(), rate)


def test_more_than_one_row() -> None:
    with pytest.raises(ValueError, match="microvolts: must be one row"):
        strip_png(np.zeros((2, 100)), RATE)


def test_no_samples_at_all() -> None:
    assert red(pixels(strip_png(np.zeros(0), RATE))).any()
