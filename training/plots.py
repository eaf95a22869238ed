"""The pictures of a model card, as PNG bytes.

The same values give the same bytes. Figures are made without pyplot, so nothing is kept between
them and no display is looked for. Colours are those of Okabe and Ito, which colour-blind readers
tell apart; text is never read as mathematics, whatever characters a column's name has.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
INK: Final = "#1f2933"
FAINT: Final = "#9aa5b1"
DPI: Final = 144
# Beyond this many classes, the counts in the cells could not be read.
COUNTED_CLASSES: Final = 20
LONGEST_LABEL: Final = 28
MOST_POINTS: Final = 5_000


def confusion_matrix(actual: ArrayLike, predicted: ArrayLike, classes: ArrayLike) -> bytes:
    """How often each class was taken for each other one. Colour is the share of the actual class."""
    from sklearn.metrics import confusion_matrix as count

    labels = np.asarray(classes)
    counts = count(actual, predicted, labels=labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.32 * len(labels), 4.4, 8.0))
    axes = _axes(side + 0.6, side, "Predicted", "Actual")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    every = -(-len(labels) // 40)
    ticks = np.arange(0, len(labels), every)
    names = [_short(label) for label in labels[ticks]]
    upright = max(map(len, names)) * len(names) > 36
    axes.set_xticks(ticks, names, parse_math=False, rotation=90 if upright else 0)
    axes.set_yticks(ticks, names, parse_math=False)
    if len(labels) <= COUNTED_CLASSES:
        for (row, column), number in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else INK if number else FAINT
            axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=9)
    return _png(axes)


def residuals(actual: ArrayLike, predicted: ArrayLike) -> bytes:
    """Actual less predicted, over predicted. A good model leaves a flat band without a shape."""
    guess, rest = np.asarray(predicted), np.asarray(actual) - np.asarray(predicted)
    if guess.size > MOST_POINTS:
        some = np.random.default_rng(0).choice(guess.size, MOST_POINTS, replace=False)
        guess, rest = guess[some], rest[some]
    axes = _axes(5.0, 4.4, "Predicted", "Actual − predicted")
    axes.axhline(0, color=INK, linewidth=1)
    axes.scatter(guess, rest, s=16, color=BLUE, alpha=0.6, linewidths=0)
    return _png(axes)


def roc_curve(is_positive: ArrayLike, score: ArrayLike, positive: Any) -> bytes:
    """True over false positive rate, at every threshold of `score`."""
    from sklearn.metrics import auc
    from sklearn.metrics import roc_curve as curve

    false, true, _ = curve(is_positive, score)
    axes = _unit_axes("False positive rate", "True positive rate")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="chance")
    axes.plot(false, true, color=BLUE, linewidth=2, label=f"{_short(positive)}, area {auc(false, true):.3f}")
    return _png(_with_legend(axes, "lower right"))


def precision_recall_curve(is_positive: ArrayLike, score: ArrayLike, positive: Any) -> bytes:
    """Precision over recall, at every threshold of `score`."""
    from sklearn.metrics import average_precision_score
    from sklearn.metrics import precision_recall_curve as curve

    precision, recall, _ = curve(is_positive, score)
    average = average_precision_score(is_positive, score)
    axes = _unit_axes("Recall", "Precision")
    share = float(np.mean(np.asarray(is_positive)))
    axes.axhline(share, color=FAINT, linewidth=1, linestyle="--", label="chance")
    label = f"{_short(positive)}, average {average:.3f}"
    axes.step(recall, precision, where="post", color=BLUE, linewidth=2, label=label)
    return _png(_with_legend(axes, "lower left"))


def importances(names: Sequence[str], means: NDArray[Any], spreads: NDArray[Any], measure: str) -> bytes:
    """One bar for each column, in the order given, the first on top."""
    axes = _axes(5.0, 1.2 + 0.28 * len(names), f"Loss of {measure} when the column is shuffled", "")
    places = np.arange(len(names))
    axes.barh(places, means, color=BLUE, height=0.7)
    axes.errorbar(means, places, xerr=spreads, fmt="none", ecolor=ORANGE, elinewidth=1.2)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(places, [_short(name) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    return _png(axes)


def _axes(width: float, height: float, across: str, up: str) -> Axes:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across, color=INK, parse_math=False)
    axes.set_ylabel(up, color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=9)
    return axes


def _unit_axes(across: str, up: str) -> Axes:
    axes = _axes(4.6, 4.4, across, up)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return axes


def _with_legend(axes: Axes, place: Literal["lower left", "lower right"]) -> Axes:
    handles, labels = axes.get_legend_handles_labels()
    for text in axes.legend(handles, labels, loc=place, frameon=False, labelcolor=INK, fontsize=9).get_texts():
        text.set_parse_math(False)
    return axes


def _png(axes: Axes) -> bytes:
    """Write the figure of `axes`. A letter that the font lacks is drawn as a box, without complaint."""
    file = io.BytesIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        # The name of the program would make the bytes differ between releases that draw alike.
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _short(label: Any) -> str:
    text = " ".join(str(label).split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
