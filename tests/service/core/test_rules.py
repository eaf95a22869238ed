from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.core.rules import ModelRules


def test_rules_of_a_model_come_before_those_of_the_server() -> None:
    server = ModelRules(fidelity="close", pickle="lazy")

    rules = ModelRules(fidelity="exact", engine="onnx").over(server)

    assert rules == ModelRules(fidelity="exact", pickle="lazy", engine="onnx")


@pytest.mark.parametrize("wrong", [{"fidelity": "roughly"}, {"pickle": "sometimes"}, {"color": "red"}])
def test_word_that_is_no_rule_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelRules(**wrong)  # type: ignore[arg-type]
