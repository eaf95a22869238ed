"""Messages of `health.proto`. Written by tests/tools/generate_protos.py: change the `.proto`."""

from __future__ import annotations

from typing import Any, Final

from service.protocols.protos import pool

pool.add(
    """
    CrsDCgxoZWFsdGgucHJvdG8SDmdycGMuaGVhbHRoLnYxIi4KEkhlYWx0aENoZWNrUmVxdWVzdBIYCgdzZXJ2aWNlGAEgASgJUgdzZXJ2aWNlIrEB
    ChNIZWFsdGhDaGVja1Jlc3BvbnNlEkkKBnN0YXR1cxgBIAEoDjIxLmdycGMuaGVhbHRoLnYxLkhlYWx0aENoZWNrUmVzcG9uc2UuU2VydmluZ1N0
    YXR1c1IGc3RhdHVzIk8KDVNlcnZpbmdTdGF0dXMSCwoHVU5LTk9XThAAEgsKB1NFUlZJTkcQARIPCgtOT1RfU0VSVklORxACEhMKD1NFUlZJQ0Vf
    VU5LTk9XThADMq4BCgZIZWFsdGgSUAoFQ2hlY2sSIi5ncnBjLmhlYWx0aC52MS5IZWFsdGhDaGVja1JlcXVlc3QaIy5ncnBjLmhlYWx0aC52MS5I
    ZWFsdGhDaGVja1Jlc3BvbnNlElIKBVdhdGNoEiIuZ3JwYy5oZWFsdGgudjEuSGVhbHRoQ2hlY2tSZXF1ZXN0GiMuZ3JwYy5oZWFsdGgudjEuSGVh
    bHRoQ2hlY2tSZXNwb25zZTABYgZwcm90bzM=
    """
)

HealthCheckRequest: Final[type[Any]] = pool.message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse: Final[type[Any]] = pool.message("grpc.health.v1.HealthCheckResponse")
