"""The strip that comes with an alarm: ten seconds on standard ECG paper, as a PNG.

25 mm are a second and 10 mm a millivolt, with a line every millimetre and a thick one every five,
as on the paper that a doctor is used to.
"""

import io
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SECONDS = 10.0
"""What fits into the row; of more, the end is drawn."""

# Whole pixels for a millimetre keep the grid crisp; 6 make a picture of some 1600 pixels, as wide
# as a phone held sideways.
_PX = 6
_SECOND = 25 * _PX
_ROW_MM = 60
_LEFT_MM, _RIGHT_MM, _TOP_MM, _BOTTOM_MM = 15, 5, 12, 8

# In millimetres a millivolt: the standard, and halves of it for a signal that does not fit.
_GAINS = (10.0, 5.0, 2.5)

# The trace is drawn so many times larger and scaled down, which smooths it.
_FINER = 3
_TRACE_PX = 2.0

_PAPER, _THIN, _THICK = (255, 250, 250), (252, 218, 222), (240, 160, 170)
_INK, _MARK, _OFF = (10, 10, 30), (30, 90, 200), (200, 0, 0)
_SHADES = 8

# Names and dashes need more letters than the font that Pillow brings has.
_FONT = "DejaVuSans.ttf"


def strip_png(
    microvolts: NDArray[np.floating],
    rate: float,
    r_peaks_s: Sequence[float] = (),
    title: Sequence[str] = (),
    lead: str = "lead I",
) -> bytes:
    """Draw a strip.

    Args:
        microvolts: [n], the samples; NaN where there is none, which is left blank.
        rate: samples per second.
        r_peaks_s: the R peaks, in seconds from the first sample; each gets a tick under the trace.
        title: up to two lines over the strip: who, and when it began.
        lead: through which it was seen, for the line beneath.

    Returns:
        A PNG of 1620 by 480 pixels. The gain is halved for a signal that does not fit, and halved
        again; where the trace leaves the paper all the same, its edge is marked red.

    Raises:
        ValueError: ``rate`` is not positive, or there is not one row of samples.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - only who sends pictures needs it

    if not 0 < rate < math.inf:
        raise ValueError(f"rate: must be a positive number of samples per second, not {rate}")
    if microvolts.ndim != 1:
        raise ValueError(f"microvolts: must be one row of samples, not {microvolts.ndim}")
    kept = microvolts[-round(SECONDS * rate) :]
    skipped_s = (len(microvolts) - len(kept)) / rate
    millivolts = np.where(np.isfinite(kept), kept, np.nan).astype(np.float64) / 1000
    gain, middle = _fit(millivolts)
    millimetres = (millivolts - middle) * gain

    left, top = _LEFT_MM * _PX, _TOP_MM * _PX
    row = round(SECONDS * _SECOND), _ROW_MM * _PX
    size = left + row[0] + _RIGHT_MM * _PX, top + row[1] + _BOTTOM_MM * _PX
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    _grid(draw, (0, top, size[0], top + row[1]))

    # As a mask, to be scaled down and filled with ink.
    mask = Image.new("L", (size[0] * _FINER, row[1] * _FINER), 0)
    pen = ImageDraw.Draw(mask)
    width = round(_TRACE_PX * _FINER)
    for line in [_calibration(gain), *_pieces(millimetres, rate)]:
        if len(line) == 1:
            (x, y), r = line[0], width / 2
            pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        else:
            pen.line(line, fill=255, width=width, joint="curve")
    image.paste(_INK, (0, top), mask.resize((size[0], row[1]), Image.Resampling.LANCZOS))

    for start, stop in _outside(millimetres):
        x0, x1 = (left + index / rate * _SECOND for index in (start, stop))
        edge = top if millimetres[start] > 0 else top + row[1] - 4
        draw.rectangle((x0, edge, max(x1, x0 + 6), edge + 4), fill=_OFF)
    for peak_s in r_peaks_s:
        at_s = peak_s - skipped_s
        if 0 <= at_s <= len(kept) / rate:
            x = left + round(at_s * _SECOND)
            draw.line((x, top + row[1] - 3 * _PX, x, top + row[1]), fill=_MARK, width=3)

    for text, y, px in zip(title, (2, 40), (30, 24), strict=False):
        _write(draw, (8, y), text, px, _INK)
    scale = f"25 mm/s   {gain:g} mm/mV   {lead}"
    _write(draw, (8, top + row[1] + 10), scale, 24, _INK)
    if not np.isfinite(millivolts).any():
        _write(draw, (left + 8, top + 8), "no signal", 30, _OFF)

    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    out = io.BytesIO()
    # A PNG of few colours is a quarter of the size.
    few = image.quantize(palette=palette, dither=Image.Dither.NONE)
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def _fit(millivolts: NDArray[np.float64]) -> tuple[float, float]:
    """The gain at which the signal fits on the paper, and what stands in the middle of it."""
    seen = millivolts[np.isfinite(millivolts)]
    if not len(seen):
        return _GAINS[0], 0.0
    low, high = float(seen.min()), float(seen.max())
    if (high - low) * _GAINS[1] > _ROW_MM:
        # No heart is that large: a jerk of the strap must not make the beats too small to be read.
        low, high = (float(v) for v in np.percentile(seen, (2.5, 97.5)))
    for gain in _GAINS:
        if (high - low) * gain <= _ROW_MM:
            # The middle of the paper is the line between the beats, as far as the rest fits.
            half = _ROW_MM / gain / 2
            return gain, min(max(float(np.median(seen)), high - half), low + half)
    return _GAINS[-1], float(np.median(seen))


def _palette() -> list[int]:
    """The colours, and the shades in which the smoothed trace passes into them."""
    colours = [_MARK, _OFF]
    for ground in (_PAPER, _THIN, _THICK):
        for shade in range(_SHADES + 1):
            share = shade / _SHADES
            mixed = [round(g + (i - g) * share) for g, i in zip(ground, _INK, strict=True)]
            colours.append((mixed[0], mixed[1], mixed[2]))
    return [value for colour in colours for value in colour]


def _write(
    draw: "ImageDraw", at: tuple[int, int], text: str, px: int, colour: tuple[int, int, int]
) -> None:
    from PIL import ImageFont  # noqa: PLC0415 - see above

    try:
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont = ImageFont.truetype(_FONT, px)
    except OSError:
        # Of what it cannot show: Å as A, a dash as a hyphen, the rest left out.
        text = re.sub("[\u2010-\u2015]", "-", text)
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        font = ImageFont.load_default(size=px)
    draw.text(at, text, fill=colour, font=font)


def _grid(draw: "ImageDraw", box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    for colour, width, every in ((_THIN, 1, 1), (_THICK, 2, 5)):
        step = every * _PX
        for x in range(x0, x1 + 1, step):
            draw.line((x, y0, x, y1), fill=colour, width=width)
        for y in range(y0, y1 + 1, step):
            draw.line((x0, y, x1, y), fill=colour, width=width)


def _calibration(gain: float) -> list[tuple[float, float]]:
    """The pulse of one millivolt for a fifth of a second, before the trace."""
    at = ((2, 0), (5, 0), (5, gain), (10, gain), (10, 0), (13, 0))
    return [(x * _PX * _FINER, _y(y)) for x, y in at]


def _pieces(millimetres: NDArray[np.float64], rate: float) -> list[list[tuple[float, float]]]:
    """The trace, cut where there is no sample."""
    pieces: list[list[tuple[float, float]]] = []
    known = np.isfinite(millimetres)
    limit = _ROW_MM / 2
    for start, stop in _runs(known):
        pieces.append(
            [
                (
                    (_LEFT_MM * _PX + i / rate * _SECOND) * _FINER,
                    _y(min(max(float(millimetres[i]), -limit), limit)),
                )
                for i in range(start, stop)
            ]
        )
    return pieces


def _outside(millimetres: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Where the trace leaves the paper: start and stop of each run, one side at a time."""
    limit = _ROW_MM / 2 + 1e-9
    return _runs(millimetres > limit) + _runs(millimetres < -limit)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _y(millimetres: float) -> float:
    return (_ROW_MM / 2 - millimetres) * _PX * _FINER
