from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.core.errors import UnreadableRequest
from service.protocols.protos import health_pb, inference_pb, pool
from tests.tools.generate_protos import modules


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in modules()])
def test_module_is_what_the_generator_makes_of_its_proto(path: Path) -> None:
    assert path.read_text("utf-8") == modules()[path]


def test_messages_of_the_same_names_may_be_in_the_process_already() -> None:
    """As where a client's package is imported beside the service: other fields, in the pool that all share."""
    theirs = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
file.message_type.add(name="ModelInferRequest").field.add(name="other", number=1, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

from service.protocols.protos.inference_pb import ModelInferRequest
assert ModelInferRequest(model_name="churn").SerializeToString() == b"\\x0a\\x05churn"
"""

    done = subprocess.run([sys.executable, "-c", theirs], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_file_that_is_known_already_may_be_added_again() -> None:
    (path,) = [path for path in modules() if path.stem == "health_pb"]

    pool.add(path.read_text("utf-8").split('"""')[3])

    assert pool.message("grpc.health.v1.HealthCheckRequest") is health_pb.HealthCheckRequest


def test_enums_know_their_numbers_by_name() -> None:
    assert inference_pb.DataType["TYPE_STRING"] == 13


@pytest.mark.parametrize("content", [b"\xff", b"\x0a\x05chur", b"\x0a\x01\xff", b"\x08"])
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(UnreadableRequest, match=r"is no inference\.ModelInferRequest"):
        pool.parse(inference_pb.ModelInferRequest, content)
