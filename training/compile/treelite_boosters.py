"""XGBoost and LightGBM as Treelite models. Neither is imported: an estimator of theirs brings its library along."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, Literal

import numpy as np

from service.core.signature import Container, Signature
from service.runtimes.treelite_recipe import Recipe
from training.compile.treelite_trees import Ensemble, NotCompiled, base_first

Link = Literal["identity", "sigmoid", "softmax", "exponential", "signed_square", "log1p_exp"]

# Treelite's names of what comes after the sum.
_LINKS: Final[dict[str, Link]] = {
    "identity": "identity",
    "identity_multiclass": "identity",
    "sigmoid": "sigmoid",
    "multiclass_ova": "sigmoid",
    "softmax": "softmax",
    "exponential": "exponential",
    "signed_square": "signed_square",
    "logarithm_one_plus_exp": "log1p_exp",
}
# XGBoost's exp is single precision, and differs from numpy's in the last digit.
_XGBOOST_MARGIN: Final = 1e-6
# LightGBM's is double.
_LIGHTGBM_MARGIN: Final = 1e-13


def read_xgboost(estimator: Any, signature: Signature) -> Ensemble:
    """The trees of an XGBClassifier, XGBRegressor, XGBRanker or one of their random forests.

    Raises:
        NotCompiled: it is none of these, or uses what Treelite lacks.
    """
    import treelite

    if not hasattr(estimator, "get_booster"):
        raise NotCompiled(f"{type(estimator).__name__} takes XGBoost's own matrices; export the scikit-learn class")
    booster = estimator.get_booster()
    learner = json.loads(booster.save_config())["learner"]
    if learner["gradient_booster"]["name"] == "gblinear":
        raise NotCompiled("a linear booster has no trees")
    if callable(estimator.objective):
        raise NotCompiled("its objective is a function of its own")
    if estimator.missing is not None and not math.isnan(estimator.missing):
        raise NotCompiled(f"{estimator.missing} stands for missing values in it")
    if "c" in (booster.feature_types or []) or any(column.pandas == "category" for column in signature.columns):
        raise NotCompiled("XGBoost codes the categories itself, in a way that is its own")
    best = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
    model = _loaded(lambda: treelite.frontend.from_xgboost(booster if best is None else booster[: best + 1]))
    link = _link(model)
    scores = "margins" if hasattr(estimator, "n_classes_") else "values"
    if scores == "margins" and link not in ("sigmoid", "softmax"):
        raise NotCompiled(f"the objective {estimator.objective} has no probabilities")
    if scores == "margins" and int(model.get_header_accessor().get_field("num_target")[0]) > 1:
        raise NotCompiled("it has several targets")
    base = _xgboost_base(learner["learner_model_param"]["base_score"], link)
    recipe = Recipe(
        scores=scores,
        cast="float32",
        link=link,
        margin=_XGBOOST_MARGIN if scores == "margins" else 0.0,
        # XGBoost takes what a sparse matrix leaves out for missing.
        zero_is_missing=signature.container is Container.SPARSE,
    )
    return Ensemble(base_first(model, base), recipe, is_double=link == "identity")


def _xgboost_base(text: str, link: Link) -> Any:
    """The base score as a margin, in single precision as XGBoost has it; None where Treelite's is the same.

    Source: `ProbToMargin` of the objectives in xgboost/src/objective.
    """
    if link not in ("sigmoid", "exponential"):
        return None
    base = np.array([float(number) for number in text.strip("[]").split(",")], dtype=np.float32)
    one = np.float32(1)
    return -np.log(one / base - one) if link == "sigmoid" else np.log(base)


def read_lightgbm(estimator: Any, signature: Signature) -> Ensemble:
    """The trees of an LGBMClassifier, LGBMRegressor, LGBMRanker, or of a Booster, whose predict applies the link.

    Raises:
        NotCompiled: it uses what Treelite lacks.
    """
    import treelite

    booster = getattr(estimator, "booster_", estimator)
    if callable(getattr(estimator, "objective", None)):
        raise NotCompiled("its objective is a function of its own")
    text = booster.model_to_string()
    if "is_linear=1" in text:
        raise NotCompiled("its leaves hold linear models")
    if any(
        int(kind) >> 2 & 3 == 1 for line in re.findall(r"^decision_type=(.*)$", text, re.M) for kind in line.split()
    ):
        raise NotCompiled("zero stands for missing values in it")
    model = _loaded(lambda: treelite.frontend.from_lightgbm(booster))
    # Treelite keeps the slope in single precision.
    slope = re.search(r"^objective=.*\bsigmoid:(\S+)", text, flags=re.MULTILINE)
    scores = "margins" if hasattr(estimator, "classes_") else "values"
    recipe = Recipe(
        scores=scores,
        cast="float64",
        link=_link(model),
        slope=float(slope[1]) if slope else 1.0,
        codes=_pandas_codes(booster, signature),
        margin=_LIGHTGBM_MARGIN if scores == "margins" else 0.0,
    )
    return Ensemble(base_first(model), recipe)


def _pandas_codes(booster: Any, signature: Signature) -> dict[int, list[Any]] | None:
    """LightGBM keeps the categories of pandas columns, in the order of the columns, and counts in them."""
    columns = [index for index, column in enumerate(signature.columns) if column.pandas == "category"]
    known = booster.pandas_categorical or []
    if len(columns) != len(known):
        raise NotCompiled("its categorical columns are not those of the sample")
    return dict(zip(columns, ([*values] for values in known), strict=True)) or None


def _loaded(load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # Treelite's errors are of one class, and XGBoost's and LightGBM's of theirs
        raise NotCompiled(f"Treelite: {error}".partition("\n")[0][:300]) from error


def _link(model: Any) -> Link:
    name = model.get_header_accessor().get_field("postprocessor")
    if name not in _LINKS:
        raise NotCompiled(f"its objective ends in {name!r}, which this compiler does not know")
    return _LINKS[name]
