from __future__ import annotations

import pytest

from service.core.contracts import Served
from service.core.deadline import NEVER
from service.core.errors import Unavailable, UnknownModel
from service.core.messages import Target
from service.protocols.health_grpc import rpcs
from service.protocols.protos.health_pb import HealthCheckRequest, HealthCheckResponse
from service.protocols.rpc import Call, Rpc
from tests.service.protocols.fake_server import FakeServer

CHECK, WATCH = rpcs({"inference.GRPCInferenceService"})


def state(server: FakeServer, name: str, rpc: Rpc = CHECK) -> str:
    reply = rpc.handler(server, HealthCheckRequest(service=name), Call(NEVER, "req-1", {}))
    return HealthCheckResponse.ServingStatus.Name(reply.status)


class Loading(FakeServer):
    """Is ready, but for one model, whose versions cannot be loaded."""

    def version(self, target: Target) -> Served:
        raise Unavailable("no version loads")


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService", "shop"])
@pytest.mark.parametrize("rpc", [CHECK, WATCH])
def test_what_answers_is_serving(name: str, rpc: Rpc) -> None:
    assert state(FakeServer(), name, rpc) == "SERVING"


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService", "shop", "whatever"])
def test_a_server_that_loads_or_drains_serves_nothing(name: str) -> None:
    assert state(FakeServer(is_ready=False), name) == "NOT_SERVING"


def test_a_model_that_cannot_be_loaded_is_not_serving_while_the_server_is() -> None:
    assert state(Loading(), "shop") == "NOT_SERVING"
    assert state(Loading(), "") == "SERVING"


def test_what_is_not_there_is_unknown_and_may_be_waited_for() -> None:
    with pytest.raises(UnknownModel):
        state(FakeServer(), "ship")
    assert state(FakeServer(), "ship", WATCH) == "SERVICE_UNKNOWN"
