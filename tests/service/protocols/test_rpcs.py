from __future__ import annotations

from typing import get_args

import pytest

from service.protocols.rpc import Kind, Rpc
from service.protocols.rpcs import DIALECTS, table
from service.settings import DialectName


def test_dialects_of_the_table_can_be_switched_off_by_their_names() -> None:
    assert set(DIALECTS) <= set(get_args(DialectName))
    assert {rpc.service for rpc in table(("mlflow",))} == {"grpc.health.v1.Health"}
    assert "inference.GRPCInferenceService" in {rpc.service for rpc in table(("v2",))}


def test_no_two_calls_have_the_same_path() -> None:
    paths = [rpc.path for rpc in table(get_args(DialectName))]

    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("rpc", [pytest.param(rpc, id=rpc.path) for rpc in table(get_args(DialectName))])
def test_streams_and_only_they_say_what_failed_in_a_message(rpc: Rpc) -> None:
    assert (rpc.failed is not None) is (rpc.kind is Kind.STREAM)
