"""The pictures of a report, each drawn from arrays and returned as the bytes of a file.

Pictures of few marks are SVG, those of many points or samples PNG. Colours are those of Okabe and
Ito 2008, which people with any kind of colour vision can tell apart; every series has a marker or a
line style of its own besides. The same numbers always give the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from training.errors import TrainingError

_INK = "#222222"
_GREY = "#9a9a9a"
_PALE = "#dddddd"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_PAPER = ("#f7d9d5", "#eba9a1")

# Any: which keys and values there are differs between versions of matplotlib.
_STYLE: Any = {
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "leadone",
    "svg.fonttype": "path",
}

# A t-SNE of more points takes minutes and shows no more.
_POINTS = 1000
FEWEST = 10
"""Records that t-SNE can place."""


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """One lead with what a network looks at.

    Attributes:
        title: which lead, of which network.
        trace: [time].
        heat: [time], not negative, e.g. of ``grad_cam``.
    """

    title: str
    trace: NDArray[np.floating]
    heat: NDArray[np.floating]


def class_auc(classes: Sequence[str], models: Mapping[str, Sequence[float]]) -> bytes:
    """A dot a model for each class, the classes by mean AUC, best on top; SVG.

    Args:
        classes: names, a row each.
        models: AUC of each class by model; NaN where a model has none.

    Raises:
        TrainingError: if a model has another number of values than there are classes, there are
            more than seven models, or none.
    """
    _few(models, "class_auc")
    for name, values in models.items():
        if len(values) != len(classes):
            raise TrainingError(
                f"class_auc: {name}: expected {len(classes)} values, got {len(values)}"
            )
    table = np.array(list(models.values()), dtype=np.float64)
    there = np.flatnonzero(~np.isnan(table).all(axis=0))
    table, names = table[:, there], [classes[int(i)] for i in there]
    order = np.argsort(np.nanmean(table, axis=0), kind="stable")
    table, rows = table[:, order], np.arange(len(order))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 1.3 + 0.22 * len(rows)), layout="constrained")
        ax = figure.subplots()
        ax.hlines(rows, np.nanmin(table, axis=0), np.nanmax(table, axis=0), _PALE, lw=2.5)
        for i, (name, values) in enumerate(zip(models, table, strict=True)):
            ax.plot(
                values,
                rows,
                _MARKERS[i],
                color=_COLOURS[i],
                ms=5.5,
                label=name,
                mec="white",
                mew=0.5,
            )
        ax.set_yticks(rows, [names[i] for i in order])
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.set_xlim(float(np.floor(np.nanmin(table) * 20 - 0.2) / 20), 1.005)
        ax.set_xlabel("AUC (area under the ROC curve)")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=4, handletextpad=0.2)
        return _svg(figure)


def tsne(
    panels: Mapping[str, NDArray[np.floating]],
    groups: NDArray[np.integer],
    names: Sequence[str],
    seed: int,
) -> bytes:
    """t-SNE (van der Maaten and Hinton 2008) of features, a panel a network, by group; PNG.

    At most 1000 records are drawn, the same ones in every panel. Distances between panels mean
    nothing, and those between clusters little.

    Args:
        panels: features [records, d] by name of the network; d may differ.
        groups: [records], each record's place in ``names``, -1 for none of them (grey).
        names: of at most seven groups.
        seed: of the choice of records and of t-SNE.

    Raises:
        TrainingError: if shapes disagree, there are more than seven groups, or under ten records.
    """
    _few(names, "tsne")
    n = len(groups)
    for name, features in panels.items():
        if len(features) != n or n < FEWEST:
            raise TrainingError(
                f"tsne: {name}: expected features of {max(n, FEWEST)} records, got {len(features)}"
            )
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:_POINTS])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 4.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, features) in zip(axes, panels.items(), strict=True):
            flat = TSNE(
                perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=seed
            ).fit_transform(np.asarray(features[rows], dtype=np.float64))
            for g in range(-1, len(names)):
                at = flat[groups[rows] == g]
                ax.scatter(
                    at[:, 0],
                    at[:, 1],
                    s=10 if g < 0 else 14,
                    color=_PALE if g < 0 else _COLOURS[g],
                    marker=_MARKERS[g] if g >= 0 else "o",
                    linewidths=0,
                    label=None if ax is not axes[0] else "other" if g < 0 else names[g],
                )
            ax.set_title(title)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel("t-SNE 1 (no unit)")
            ax.set_ylabel("t-SNE 2 (no unit)")
        figure.legend(loc="outside lower left", ncols=8, markerscale=1.6, handletextpad=0.1)
        return _png(figure)


def strips(
    real: NDArray[np.floating],
    restored: NDArray[np.floating],
    rate: float,
    leads: Sequence[str],
) -> bytes:
    """Restored over real leads, a row each, on the grid of ECG paper in time; PNG.

    The grid has 0.04 s and 0.2 s as on paper. Upwards it has one standard deviation of the lead and
    five, since leads are restored as z-scores and their millivolts are not known.

    Args:
        real: [leads, time], z-scored.
        restored: the same shape.
        rate: samples per second, in Hz.
        leads: names.

    Raises:
        TrainingError: if shapes disagree.
    """
    if real.shape != restored.shape or len(real) != len(leads):
        raise TrainingError(
            f"strips: expected [{len(leads)}, time] twice, got {list(real.shape)} and "
            f"{list(restored.shape)}"
        )
    seconds = np.arange(real.shape[1]) / rate
    spacing = 10.0
    base = -spacing * np.arange(len(leads))[:, None]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 1.2 + 0.85 * len(leads)), layout="constrained")
        ax = figure.subplots()
        _paper(ax, time_s=float(seconds[-1] + 1 / rate))
        first, *_ = ax.plot(seconds, (real + base).T, color=_INK, lw=1.1)
        second, *_ = ax.plot(seconds, (restored + base).T, color=_COLOURS[0], lw=1.1)
        ax.set_yticks(base[:, 0], leads)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(base[-1, 0] - 6, 9)
        ax.set_xlabel("time / s (small squares 0.04 s × 1 standard deviation of the lead)")
        figure.legend([first, second], ["real", "restored"], loc="outside upper left", ncols=2)
        return _png(figure)


def heat_strips(strips_: Sequence[Heat], rate: float) -> bytes:
    """Traces with heat behind them, one below the other; PNG.

    The heat of each strip is scaled to its own greatest value.

    Args:
        strips_: of equal length.
        rate: samples per second, in Hz.

    Raises:
        TrainingError: if lengths differ or there is no strip.
    """
    lengths = {len(x) for s in strips_ for x in (s.trace, s.heat)}
    if len(lengths) != 1:
        raise TrainingError(f"heat_strips: expected strips of one length, got {sorted(lengths)}")
    (n,) = lengths
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 0.9 + 1.5 * len(strips_)), layout="constrained")
        axes = figure.subplots(len(strips_), 1, sharex=True, squeeze=False)[:, 0]
        for ax, strip in zip(axes, strips_, strict=True):
            low, high = float(np.min(strip.trace)), float(np.max(strip.trace))
            margin = 0.08 * max(high - low, 1e-6)
            share = strip.heat / max(float(np.max(strip.heat)), 1e-12)
            image = ax.imshow(
                share[None],
                cmap="YlOrBr",
                vmin=0,
                vmax=1.4,  # the darkest browns would hide the trace
                aspect="auto",
                interpolation="nearest",
                extent=(-0.5 / rate, (n - 0.5) / rate, low - margin, high + margin),
            )
            ax.plot(np.arange(n) / rate, strip.trace, color=_INK, lw=1.1)
            ax.set_title(strip.title)
            ax.set_ylabel("z-score")
            ax.xaxis.set_major_locator(MultipleLocator(1))
        axes[-1].set_xlabel("time / s")
        bar = figure.colorbar(image, ax=list(axes), pad=0.01, aspect=30, boundaries=_steps())
        bar.set_label("heat, share of the strip's greatest")
        bar.set_ticks([0, 0.5, 1])
        bar.outline.set_visible(False)
        return _png(figure)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> bytes:
    """Lines over training, such as losses; SVG.

    Args:
        series: x and y by name.
        x_label: with its unit, e.g. ``epoch``.
        y_label: with its unit, e.g. ``binary cross-entropy / nat``.

    Raises:
        TrainingError: if x and y of a line differ in length, there are more than seven, or none.
    """
    _few(series, "curves")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        ax = figure.subplots()
        for i, (name, (x, y)) in enumerate(series.items()):
            if len(x) != len(y):
                raise TrainingError(f"curves: {name}: got {len(x)} x and {len(y)} y values")
            ax.plot(x, y, color=_COLOURS[i], ls=_LINES[i], lw=1.6, label=name)
        ax.set_xlabel(x_label)
        ax.set_ylabel(y_label)
        ax.grid()
        figure.legend(loc="outside upper left", ncols=4)
        return _svg(figure)


def _few(named: Mapping[str, object] | Sequence[str], place: str) -> None:
    if not 1 <= len(named) <= len(_COLOURS):
        raise TrainingError(f"{place}: expected 1 to {len(_COLOURS)} colours, got {len(named)}")


def _paper(ax: Axes, *, time_s: float) -> None:
    ax.set_xlim(0, time_s)
    ax.xaxis.set_major_locator(MultipleLocator(1))
    for axis, small, large in (("x", 0.04, 0.2), ("y", 1.0, 5.0)):
        for step, colour, width in ((small, _PAPER[0], 0.4), (large, _PAPER[1], 0.6)):
            draw = ax.axvline if axis == "x" else ax.axhline
            reach = (0.0, time_s) if axis == "x" else (-130.0, 10.0)
            for at in np.arange(reach[0], reach[1] + step / 2, step):
                draw(float(at), color=colour, lw=width, zorder=0)


def _steps() -> NDArray[np.float64]:
    return np.linspace(0, 1, 101)


def _svg(figure: Figure) -> bytes:
    # Without a date or the program's name the file is the same every time.
    return _bytes(figure, "svg", {"Date": None, "Creator": None})


def _png(figure: Figure) -> bytes:
    return _bytes(figure, "png", {"Software": None})


def _bytes(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=130, metadata=metadata)
    return out.getvalue()
