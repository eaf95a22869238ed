"""A Treelite model as the service needs it, and why there may be none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from service.runtimes.treelite_recipe import Recipe

if TYPE_CHECKING:
    from treelite import Model

_FLOATS: Final = {2: "float32", 3: "float64"}
# In the order of Treelite's own enumeration.
_TASKS: Final = ("kBinaryClf", "kRegressor", "kMultiClf", "kLearningToRank", "kIsolationForest")


class NotCompiled(Exception):
    """Why an estimator has no Treelite engine, in words for people."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees, and what is to be done with their sums.

    `is_double` says that answers are computed in the estimator's own precision, operation by operation.
    """

    model: Model
    recipe: Recipe
    is_double: bool = True

    @property
    def width(self) -> int:
        return int(self.model.num_feature)


def base_first(model: Model, scores: Any = None) -> Model:
    """The same model with its base scores as trees of one leaf, ahead of the others.

    Every library begins with the base and adds one tree after another; Treelite adds the base
    at the end, which gives other last digits, and another label where two classes are equal.

    Args:
        scores: the base where it is known better than Treelite does; else the model's own.
    """
    from treelite import Model
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    field: Callable[[str], Any] = model.get_header_accessor().get_field
    base = [float(score) for score in (field("base_scores") if scores is None else scores)]
    targets, classes = int(field("num_target")[0]), field("num_class").tolist()
    shape = tuple(field("leaf_vector_shape").tolist())
    if not any(base) or field("average_tree_output")[0]:
        return model
    if shape != (1, 1) or len(base) != sum(classes):
        raise NotCompiled("its base scores are of a shape that is not understood")
    of_target = [target for target, count in enumerate(classes) for _ in range(count)]
    of_class = [number for count in classes for number in range(count)]
    builder: Any = ModelBuilder(
        threshold_type=_FLOATS[int(field("threshold_type")[0])],
        leaf_output_type=_FLOATS[int(field("leaf_output_type")[0])],
        metadata=Metadata(
            num_feature=int(field("num_feature")[0]),
            task_type=_TASKS[int(field("task_type")[0])],
            average_tree_output=False,
            num_target=targets,
            num_class=classes,
            leaf_vector_shape=shape,
        ),
        tree_annotation=TreeAnnotation(num_tree=len(base), target_id=of_target, class_id=of_class),
        postprocessor=PostProcessorFunc(
            field("postprocessor"), float(field("sigmoid_alpha")[0]), float(field("ratio_c")[0])
        ),
        base_scores=[0.0] * len(base),
    )
    for score in base:
        builder.start_tree()
        builder.start_node(0)
        builder.leaf(score)
        builder.end_node()
        builder.end_tree()
    return Model.concatenate([builder.commit(), model])
