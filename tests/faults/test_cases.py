"""Every case of the list is shown by a test, or left out with its reason."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest

from tests.faults.cases import LISTED
from tests.faults.left_out import LEFT_OUT


@lru_cache
def shown() -> frozenset[str]:
    """Ids in the `@fault(…)` of all tests."""
    ids: set[str] = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault":
                ids |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    return frozenset(ids)


@pytest.mark.parametrize("case", LISTED)
def test_every_case_is_shown_or_left_out_with_its_reason(case: str) -> None:
    assert case in shown() or LEFT_OUT.get(case)


def test_no_reason_is_given_for_what_is_not_listed() -> None:
    assert set(LEFT_OUT) <= set(LISTED)
