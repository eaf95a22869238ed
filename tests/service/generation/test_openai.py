from __future__ import annotations

import json

import pytest

from service.core.errors import InvalidField, NotAllowed, RateLimited, Unauthenticated, Unavailable, UpstreamFailed
from service.generation.openai import openai_error


@pytest.mark.parametrize(
    ("error", "status", "kind", "param"),
    [
        (InvalidField("n", "one", "two"), 422, "invalid_request_error", "n"),
        (Unauthenticated(), 401, "authentication_error", None),
        (NotAllowed("no"), 403, "permission_error", None),
        (RateLimited("often", 7), 429, "rate_limit_error", None),
        (UpstreamFailed("broke"), 502, "server_error", None),
        (KeyError("/srv"), 500, "server_error", None),
    ],
)
def test_errors_are_in_openais_envelope(error: Exception, status: int, kind: str, param: str | None) -> None:
    reply = openai_error(error, "id")

    content = json.loads(reply.body)["error"]
    assert (reply.status, content["type"], content["param"]) == (status, kind, param)
    assert content.keys() == {"message", "type", "param", "code"}
    assert "/srv" not in content["message"]


def test_when_to_try_again_is_told() -> None:
    assert openai_error(Unavailable("later", 9), "id").headers["retry-after"] == "9"
