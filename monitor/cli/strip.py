"""A strip of ECG drawn in the terminal, with Braille dots."""

import numpy as np
from numpy.typing import NDArray

# Dots of a Braille character by column and row (Unicode, chapter 21.1).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_EMPTY = 0x2800


def strip(microvolts: NDArray[np.float32], *, width: int, height: int) -> list[str]:
    """Draw a signal as lines of text, each of its columns from its lowest to its highest sample.

    Args:
        microvolts: [n]; NaN leaves a hole.
        width: characters a line.
        height: lines.

    Returns:
        ``height`` lines of ``width`` characters; blank where there is nothing to draw.
    """
    columns, rows = 2 * width, 4 * height
    cells = np.full((height, width), _EMPTY)
    there = microvolts[np.isfinite(microvolts)]
    if len(there):
        # An electrode that comes loose throws the signal far off, and would flatten the beats.
        low, high = np.percentile(there, (0.2, 99.8))
        scale = (rows - 1) / max(float(high - low), 1.0)
        before: int | None = None
        for column, some in enumerate(np.array_split(microvolts, columns)):
            held = some[np.isfinite(some)]
            if not len(held):
                before = None
                continue
            places = np.rint((high - held) * scale).clip(0, rows - 1).astype(int)
            top, bottom = int(places.min()), int(places.max())
            if before is not None:
                top, bottom = min(top, before), max(bottom, before)
            for row in range(top, bottom + 1):
                cells[row // 4, column // 2] |= _DOTS[column % 2][row % 4]
            before = int(places[-1])
    return ["".join(map(chr, line)) for line in cells]
