"""The one table of remote procedure calls, as `routes.py` is of routes. It needs protobuf; only gRPC imports it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from service.protocols import health_grpc
from service.protocols.rpc import Rpc
from service.protocols.v1 import calls as tfs_grpc
from service.protocols.v2 import calls as v2_grpc

# The calls of every dialect that settings can switch off and that has any.
DIALECTS: Final[Mapping[str, tuple[Rpc, ...]]] = MappingProxyType({"v2": v2_grpc.RPCS, "v1": tfs_grpc.RPCS})


def table(dialects: Collection[str]) -> tuple[Rpc, ...]:
    """The calls of `dialects`, and the health of all."""
    spoken = [rpc for name in dialects for rpc in DIALECTS.get(name, ())]
    return (*spoken, *health_grpc.rpcs({rpc.service for rpc in spoken}))
