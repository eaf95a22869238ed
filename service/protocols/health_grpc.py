"""The standard health service of gRPC, which orchestrators and load balancers ask: of the server, or of one model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import Unavailable, UnknownModel
from service.core.messages import Target
from service.protocols.protos import health_pb as pb
from service.protocols.route import Scope
from service.protocols.rpc import Call, Kind, Rpc

SERVICE: Final = "grpc.health.v1.Health"


def rpcs(services: Collection[str]) -> tuple[Rpc, ...]:
    """The methods, where these gRPC services stand for the server as a whole."""

    def state(server: Server, name: str) -> int:
        if server.is_ready() and name and name not in services:
            try:
                server.version(Target(name))
            except Unavailable:
                return int(pb.HealthCheckResponse.NOT_SERVING)
        return int(pb.HealthCheckResponse.SERVING if server.is_ready() else pb.HealthCheckResponse.NOT_SERVING)

    def check(server: Server, request: Any, call: Call) -> Any:
        """Raises UnknownModel where there is nothing of that name."""
        return pb.HealthCheckResponse(status=state(server, request.service))

    def watch(server: Server, request: Any, call: Call) -> Any:
        try:
            return check(server, request, call)
        except UnknownModel:  # it may come: a watch goes on
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)

    return (
        Rpc(SERVICE, "Check", pb.HealthCheckRequest, pb.HealthCheckResponse, check, Scope.PUBLIC),
        Rpc(SERVICE, "Watch", pb.HealthCheckRequest, pb.HealthCheckResponse, watch, Scope.PUBLIC, Kind.WATCH),
    )
