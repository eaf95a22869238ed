from __future__ import annotations

import pytest

from service.core.callers import ANYBODY, STRANGER, Caller, Scope
from service.core.errors import NotAllowed


@pytest.mark.parametrize("scope", Scope)
def test_anybody_may_do_all(scope: Scope) -> None:
    ANYBODY.require(scope)


def test_stranger_may_do_what_is_public_and_sees_no_model() -> None:
    STRANGER.require(Scope.PUBLIC)

    assert STRANGER.models == frozenset()


@pytest.mark.parametrize("scope", [Scope.METRICS, Scope.ADMIN])
def test_scope_that_is_lacking_is_named(scope: Scope) -> None:
    with pytest.raises(NotAllowed, match=f"'{scope.value}'"):
        Caller("shop", frozenset({Scope.PREDICT})).require(scope)
