from __future__ import annotations

import pytest

from service.generation.documents import OPERATIONS
from service.generation.requests import FIELDS, Form

FORMS = {
    "/v1/generate": Form.GENERATE,
    "/v1/generate/stream": Form.GENERATE,
    "/v1/completions": Form.COMPLETIONS,
    "/v1/chat/completions": Form.CHAT,
}


@pytest.mark.parametrize("path", OPERATIONS)
def test_document_has_the_fields_that_are_taken_and_no_other(path: str) -> None:
    schema = OPERATIONS[path]["requestBody"]["content"]["application/json"]["schema"]

    assert schema["properties"].keys() == FIELDS[FORMS[path]]


@pytest.mark.parametrize("path", OPERATIONS)
def test_every_failure_is_told(path: str) -> None:
    assert {"200", "413", "422", "429", "502", "503", "504"} <= OPERATIONS[path]["responses"].keys()
