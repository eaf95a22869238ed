"""What counts as served without unpickling, and why something does not."""

from __future__ import annotations

from benchmarks.coverage import Covered, as_text, content, reasons
from service.repository.manifest import DroppedEngine


def test_reasons_are_those_of_the_output_and_of_all_outputs() -> None:
    dropped = (
        DroppedEngine(name="onnx", output="predict", reason="labels differ"),
        DroppedEngine(name="onnx", output="transform", reason="off by 1e-3"),
        DroppedEngine(name="treelite", reason="no trees"),
    )

    why = reasons("predict", dropped)

    assert why == "onnx: labels differ; treelite: no trees"


def test_estimator_counts_only_when_every_output_is_covered() -> None:
    found = [
        Covered("Ridge", {"predict": ["onnx"]}),
        Covered("SVC", {"predict": ["onnx"]}, {"decision_function": "onnx: differs"}),
        Covered("Odd", {}, {"predict": "no engine"}),
    ]

    told = content(found, {"DictVectorizer": "dictionaries"})

    assert (told["servable"], told["without_unpickling"]) == (3, 1)
    assert "| SVC | predict | decision_function | onnx: differs |" in as_text(found, {})
