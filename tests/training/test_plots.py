from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training import plots

RNG = np.random.default_rng(0)
TRUTH = RNG.random(60) < 0.4
SCORE = TRUTH + RNG.normal(size=60)
WORDS = np.array(["$a_b$", "x\ny", "日本", "a rather long name of a class that goes on"])
CLASSES = RNG.integers(0, 4, 60)

PICTURES = {
    "confusion matrix": lambda: plots.confusion_matrix(WORDS[CLASSES], WORDS[CLASSES[::-1]], WORDS),
    "confusion matrix of many": lambda: plots.confusion_matrix(np.arange(90), np.arange(90)[::-1], np.arange(90)),
    "residuals": lambda: plots.residuals(SCORE, SCORE * 0.8),
    "residuals of many": lambda: plots.residuals(np.arange(9000.0), np.arange(9000.0) ** 0.9),
    "roc": lambda: plots.roc_curve(TRUTH, SCORE, "$1"),
    "precision and recall": lambda: plots.precision_recall_curve(TRUTH, SCORE, True),
    "importances": lambda: plots.importances(list(WORDS), np.array([0.3, 0.1, 0, -0.1]), np.full(4, 0.05), "R²"),
}

draws = pytest.mark.parametrize("draw", [pytest.param(draw, id=name) for name, draw in PICTURES.items()])


@draws
def test_every_picture_is_a_png_whatever_the_names_contain(draw: Callable[[], bytes]) -> None:
    png = draw()

    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")


@draws
def test_the_same_values_give_the_same_bytes(draw: Callable[[], bytes]) -> None:
    assert draw() == draw()
