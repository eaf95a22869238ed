"""Faults over gRPC, against the service as people start it. What needs a model that waits is shown in
tests/service/entrypoints/test_grpc_server.py, processes that end in tests/conformance/test_grpc.py."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from service.entrypoints.grpc_errors import CODES
from service.entrypoints.grpc_server import METADATA_BYTES, STREAMS
from service.protocols.protos import inference_pb as pb
from service.settings import Settings
from tests.conformance.servers import Running, free_port, tandem_serve
from tests.faults import h2
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, MODEL, PATIENCE_S, Front
from tests.service.entrypoints.test_grpc_server import Pending, channel_to, infer, request, running

pytestmark = pytest.mark.front("grpc")

MIB: Final = 2**20
INFER: Final = b"/inference.GRPCInferenceService/ModelInfer"
LIVE: Final = b"/inference.GRPCInferenceService/ServerLive"
LIMIT: Final = Settings().max_body_bytes
COMPRESSED: Final = 1  # the flag before a message

REFUSED_STREAM: Final = struct.pack(">I", 0x7)
ENHANCE_YOUR_CALM: Final = struct.pack(">I", 0xB)


@dataclass(frozen=True, slots=True)
class Grpc:
    """The service with its port for gRPC."""

    running: Running
    port: int

    @contextmanager
    def channel(self, **options: int) -> Iterator[grpc.Channel]:
        """A connection of its own."""
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        given = [(f"grpc.{name}", value) for name, value in options.items()]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=own + given) as channel:
            yield channel

    def ask(self, content: bytes, path: bytes = INFER, *, channel: grpc.Channel, **call: Any) -> bytes:
        answer: bytes = channel.unary_unary(path.decode())(content, timeout=PATIENCE_S, **call)
        return answer

    def refused(self, content: bytes, path: bytes = INFER, *, channel: grpc.Channel, **call: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(content, path, channel=channel, **call)
        return caught.value

    def memory_bytes(self) -> int:
        return Front("grpc", self.running).memory_bytes()

    def is_well(self, since: int) -> None:
        """What holds after every case, asked over gRPC too."""
        with self.channel() as channel:
            response = pb.ModelInferResponse.FromString(self.ask(good(), channel=channel))
        assert list(response.outputs[0].contents.int64_contents) == KNOWN
        Front("grpc", self.running).is_well(since)


@pytest.fixture(scope="module")
def served(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grpc]:
    port = free_port()
    arguments = ("--models", str(repository), "--trust", "tests.conformance.models.days", "--grpc-port", str(port))
    with tandem_serve(*arguments, log=tmp_path_factory.mktemp("logs") / "grpc") as server:
        yield Grpc(server, port)


@pytest.fixture
def service(served: Grpc) -> Iterator[Grpc]:
    """Shared; after the test it must be as well as before, and have grown by no more than some buffers."""
    before, since = served.memory_bytes(), served.running.log.stat().st_size
    yield served
    served.is_well(since)
    assert served.memory_bytes() - before < 64 * MIB


def good(**fields: Any) -> bytes:
    (row,) = GOOD["instances"]
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, len(row)])
    tensor.contents.fp64_contents.extend(row)
    content: bytes = pb.ModelInferRequest(model_name=MODEL, inputs=[tensor], **fields).SerializeToString()
    return content


def padded(size: int) -> bytes:
    """A good request of so many bytes."""
    content = good(id="x" * (2 * size - len(good(id="x" * size))))
    assert len(content) == size
    return content


# -- messages ------------------------------------------------------------------------------------


@fault(
    "R01", sent="a message of the limit, and of one byte more", expected="answered; RESOURCE_EXHAUSTED, channel usable"
)
def test_message_above_the_limit(service: Grpc, came: Came) -> None:
    with service.channel(max_receive_message_length=-1) as channel:
        fits = service.ask(padded(LIMIT), channel=channel)
        error = service.refused(padded(LIMIT + 1), channel=channel)
        again = service.ask(good(), channel=channel)
    came("answered", error.code().name, "answered")

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert fits and again


@fault(
    "R02", sent="a request whose answer is above the client's own limit", expected="RESOURCE_EXHAUSTED from the client"
)
def test_answer_above_the_clients_limit(service: Grpc, came: Came) -> None:
    content = good(id="x" * 2000)  # the answer says it back
    with service.channel(max_receive_message_length=1000) as channel:
        error = service.refused(content, channel=channel)
    came(error.code().name)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@fault(
    "R03", sent="a message that is no protobuf; a method that is not there", expected="INVALID_ARGUMENT; UNIMPLEMENTED"
)
def test_malformed_message_and_unknown_method(service: Grpc, came: Came) -> None:
    with service.channel() as channel:
        malformed = service.refused(b"\xff\xff\xff", channel=channel)
        unknown = service.refused(b"", b"/inference.GRPCInferenceService/Nothing", channel=channel)
    came(malformed.code().name, unknown.code().name)

    assert malformed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert malformed.details() == "the message is no inference.ModelInferRequest"
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED


@fault(
    "R04", sent="a shape that the bytes do not have, overflows or is negative", expected="INVALID_ARGUMENT, no memory"
)
@pytest.mark.parametrize("shape", [(1, 5), (2, 4), (2**40, 2**40), (2**62, 4), (-1, 4), (1, -4), (0, 4), (4,)], ids=str)
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_shape_and_bytes_that_disagree(is_raw: bool, shape: tuple[int, ...], service: Grpc, came: Came) -> None:
    asked = pb.ModelInferRequest(model_name=MODEL)
    tensor = asked.inputs.add(name="x", datatype="FP64", shape=shape)
    if is_raw:
        asked.raw_input_contents.append(bytes(32))
    else:
        tensor.contents.fp64_contents.extend([0.0] * 4)
    with service.channel() as channel:
        error = service.refused(asked.SerializeToString(), channel=channel)
    came(error.code().name)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@fault("R11", sent="64 KiB of gzip or deflate that hold 64 MiB", expected="RESOURCE_EXHAUSTED by what they hold")
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_message_that_grows(coding: str, service: Grpc, came: Came) -> None:
    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    assert len(bomb) < LIMIT / 10
    with h2.Connection(service.port) as connection:
        block = h2.call_headers(INFER, [(b"grpc-encoding", coding.encode())])
        parts = [bomb[at : at + 16_384] for at in range(0, len(bomb), 16_384)]
        head = h2.frame(h2.DATA, 1, struct.pack(">BI", COMPRESSED, len(bomb)))
        connection.send(h2.frame(h2.HEADERS, 1, block, h2.END_HEADERS), head)
        # Within the window that the server opens for every stream.
        connection.send(*(h2.frame(h2.DATA, 1, part) for part in parts), h2.frame(h2.DATA, 1, b"", h2.END_STREAM))
        trailers = next(one for one in connection.frames() if one.kind == h2.HEADERS and one.flags & h2.END_STREAM)
    came(trailers.payload.partition(b"grpc-status")[2][1:2].decode())

    assert b"grpc-status\x018" in trailers.payload  # RESOURCE_EXHAUSTED
    assert b"larger than max" in trailers.payload


# -- headers -------------------------------------------------------------------------------------


@fault("R07", sent="metadata of 1 MiB, in one value, in many, in CONTINUATION frames without end", expected="refused")
@pytest.mark.parametrize("values", [1, 100], ids=["one value", "many values"])
def test_large_metadata(values: int, service: Grpc, came: Came) -> None:
    fits = (("x-more", "y" * (METADATA_BYTES - 2048)),)
    large = [(f"x-more-{place}", "y" * (MIB // values)) for place in range(values)]
    with service.channel() as channel:
        service.ask(good(), channel=channel, metadata=fits)
        error = service.refused(good(), channel=channel, metadata=large)
    came(error.code().name)

    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@fault(
    "R07",
    sent="metadata that is not ASCII: UTF-8, or no text at all",
    expected="INVALID_ARGUMENT, the value not said back",
)
@pytest.mark.parametrize("value", ["é".encode(), b"\xff\xfe"], ids=["utf-8", "no text"])
def test_metadata_that_is_not_ascii(value: bytes, service: Grpc, came: Came) -> None:
    with h2.Connection(service.port) as connection:
        block = h2.call_headers(LIVE, [(b"x-odd", value)])
        asked = h2.frame(h2.DATA, 1, h2.message(b""), h2.END_STREAM)
        connection.send(h2.frame(h2.HEADERS, 1, block, h2.END_HEADERS), asked)
        trailers = next(one for one in connection.frames() if one.kind == h2.HEADERS and one.flags & h2.END_STREAM)
    came(trailers.payload.partition(b"grpc-status")[2][1:2].decode())

    assert b"grpc-status\x013" in trailers.payload  # INVALID_ARGUMENT
    assert value not in trailers.payload
    assert "Traceback" not in service.running.told() and "UnicodeDecodeError" not in service.running.told()


# -- floods --------------------------------------------------------------------------------------


@fault("R08", sent="20 000 calls, each reset at once", expected="reset, or the connection ends; memory bounded")
def test_rapid_reset(service: Grpc, came: Came) -> None:
    block, cancel = h2.call_headers(LIVE), struct.pack(">I", h2.CANCEL)
    with h2.Connection(service.port) as connection:
        for first in range(1, 40_000, 1000):
            frames = [
                h2.frame(h2.HEADERS, stream, block, h2.END_HEADERS) + h2.frame(h2.RST_STREAM, stream, cancel)
                for stream in range(first, first + 1000, 2)
            ]
            if not connection.send(*frames):
                break
        kinds = told(connection)
    came(f"{kinds['refused']} refused", "closed" if kinds["closed"] else "open")

    assert kinds["refused"] or kinds["closed"]


@fault("R08", sent="10 000 pings", expected="GOAWAY: too many pings")
def test_ping_flood(service: Grpc, came: Came) -> None:
    with h2.Connection(service.port) as connection:
        connection.send(*[h2.frame(h2.PING, 0, bytes(8))] * 10_000)
        last = [one for one in connection.frames() if one.kind == h2.GOAWAY]
    came("GOAWAY", last[0].payload[8:].decode())

    assert last[0].payload[4:8] == ENHANCE_YOUR_CALM


@fault("R08", sent="100 000 SETTINGS frames", expected="acknowledged or ended; memory bounded")
def test_settings_flood(service: Grpc, came: Came) -> None:
    with h2.Connection(service.port) as connection:
        connection.send(*[h2.frame(h2.SETTINGS, 0, struct.pack(">HI", 4, 65_536))] * 100_000)
        kinds = told(connection)
    came(f"{kinds['acknowledged']} acknowledged", "closed" if kinds["closed"] else "open")

    assert kinds["acknowledged"] or kinds["closed"]


@fault(
    "R08", sent="1 000 calls at once on one connection, none of them finished", expected=f"all but {STREAMS} refused"
)
def test_thousand_streams(service: Grpc, came: Came) -> None:
    block = h2.call_headers(INFER)
    with h2.Connection(service.port) as connection:
        connection.send(*[h2.frame(h2.HEADERS, stream, block, h2.END_HEADERS) for stream in range(1, 2000, 2)])
        kinds = told(connection, until=1000 - STREAMS)
    came(f"{kinds['refused']} of 1000 refused")

    assert kinds["refused"] == 1000 - STREAMS


@fault("R08", sent="a message in 200 000 frames of one byte", expected="taken, reset or ended; memory bounded")
def test_one_byte_frames(service: Grpc, came: Came) -> None:
    content = h2.message(padded(200_000))
    with h2.Connection(service.port) as connection:
        connection.send(h2.frame(h2.HEADERS, 1, h2.call_headers(INFER), h2.END_HEADERS))
        whole = connection.send(*(h2.frame(h2.DATA, 1, content[at : at + 1]) for at in range(len(content))))
        connection.send(h2.frame(h2.DATA, 1, b"", h2.END_STREAM))
        ends = next((one for one in connection.frames() if ends_stream(one)), None)
    came("closed" if ends is None else "reset" if ends.kind == h2.RST_STREAM else "answered")

    assert not whole or ends is not None


@fault("R07", sent="a header block of 20 000 CONTINUATION frames", expected="refused; memory bounded")
def test_continuation_flood(service: Grpc, came: Came) -> None:
    more = h2.headers([(b"x-more", b"y" * 100)])
    with h2.Connection(service.port) as connection:
        connection.send(h2.frame(h2.HEADERS, 1, h2.call_headers(LIVE)))
        frames = [h2.frame(h2.CONTINUATION, 1, more)] * 20_000
        connection.send(*frames, h2.frame(h2.CONTINUATION, 1, b"", h2.END_HEADERS))
        kinds = told(connection)
    came("no answer", "closed" if kinds["closed"] else "open")

    assert not kinds["answered"]


def told(connection: h2.Connection, until: int | None = None) -> Counter[str]:
    """What comes within a second of silence, or until so many calls were refused."""
    kinds: Counter[str] = Counter()
    connection.patience(1.0)
    try:
        for one in connection.frames():
            kinds["refused"] += one.kind == h2.RST_STREAM
            kinds["acknowledged"] += one.kind == h2.SETTINGS and bool(one.flags & h2.ACK)
            kinds["answered"] += one.kind == h2.DATA
            if until is not None and kinds["refused"] == until:
                return kinds
    except TimeoutError:
        return kinds
    kinds["closed"] = 1
    return kinds


def ends_stream(one: h2.Frame) -> bool:
    return one.kind == h2.RST_STREAM or (one.kind == h2.HEADERS and bool(one.flags & h2.END_STREAM))


# -- connections ---------------------------------------------------------------------------------


@fault(
    "R09",
    sent="a connection without a call for grpc_idle_s",
    expected="GOAWAY; the client connects anew",
)
def test_idle_connection(came: Came) -> None:
    with running(grpc_idle_s=0.2) as beside, channel_to(beside) as channel:
        infer(channel)(request(), timeout=PATIENCE_S)
        with h2.Connection(beside.settings.grpc_port) as connection:
            told_to_go = next(one for one in connection.frames() if one.kind == h2.GOAWAY)
        answer = infer(channel)(request(), timeout=PATIENCE_S)
    came("GOAWAY", told_to_go.payload[8:].decode(), "answered")

    assert told_to_go.payload[8:] == b"connection idle"
    assert answer.model_name == "shop"


@fault(
    "R09", sent="a call on a connection that grows older than grpc_age_s", expected="GOAWAY; the call is answered still"
)
def test_old_connection(came: Came) -> None:
    server = Pending()
    with running(server, grpc_age_s=0.2) as beside, channel_to(beside) as channel:
        call = infer(channel).future(request(), timeout=PATIENCE_S)
        assert server.asked.wait(PATIENCE_S)
        # One that was opened later is told to go: so was the other.
        with h2.Connection(beside.settings.grpc_port) as connection:
            told_to_go = next(one for one in connection.frames() if one.kind == h2.GOAWAY)
        server.answer_all()
        answer = call.result()
    came("GOAWAY", f"error {int.from_bytes(told_to_go.payload[4:8], 'big')}", "answered")

    assert told_to_go.payload[4:8] == bytes(4)
    assert answer.model_name == "shop"


# -- the rest ------------------------------------------------------------------------------------


@fault("R05", sent="a call whose deadline is over when it comes", expected="DEADLINE_EXCEEDED, never an answer")
@pytest.mark.parametrize("timeout", [b"0n", b"0m"])
def test_deadline_that_is_over(timeout: bytes, service: Grpc, came: Came) -> None:
    with h2.Connection(service.port) as connection:
        block = h2.call_headers(INFER, [(b"grpc-timeout", timeout)])
        asked = h2.frame(h2.DATA, 1, h2.message(good()), h2.END_STREAM)
        connection.send(h2.frame(h2.HEADERS, 1, block, h2.END_HEADERS), asked)
        ends = next(one for one in connection.frames() if ends_stream(one))
    came("reset" if ends.kind == h2.RST_STREAM else ends.payload.partition(b"grpc-status")[2][1:2].decode())

    assert ends.kind == h2.RST_STREAM or b"grpc-status\x014" in ends.payload


@fault("R13", sent="reflection and channelz", expected="UNIMPLEMENTED")
@pytest.mark.parametrize(
    "path",
    [
        b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        b"/grpc.channelz.v1.Channelz/GetServers",
    ],
)
def test_reflection_and_channelz(path: bytes, service: Grpc, came: Came) -> None:
    with service.channel() as channel:
        error = service.refused(b"", path, channel=channel)
    came(error.code().name)

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@fault(
    "R14", sent="the same tensors over HTTP and gRPC, good and bad", expected="the same numbers; the code of the status"
)
@pytest.mark.parametrize(
    ("model", "shape", "datatype", "outputs"),
    [
        pytest.param(MODEL, [1, 4], "FP64", ["predict", "predict_proba"], id="good"),
        pytest.param("nobody", [1, 4], "FP64", [], id="no such model"),
        pytest.param(MODEL, [2, 2], "FP64", [], id="wrong shape"),
        pytest.param(MODEL, [1, 5], "FP64", [], id="shape without its data"),
        pytest.param(MODEL, [1, 4], "BYTES", [], id="wrong type"),
        pytest.param(MODEL, [1, 4], "FP64", ["nothing"], id="no such output"),
    ],
)
def test_same_over_http(
    model: str, shape: list[int], datatype: str, outputs: list[str], service: Grpc, came: Came
) -> None:
    (row,) = GOOD["instances"]
    data = [str(value) for value in row] if datatype == "BYTES" else row
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    body = {"inputs": [tensor]} | ({"outputs": [{"name": name} for name in outputs]} if outputs else {})
    reply = Front("grpc", service.running).ask(path=f"/v2/models/{model}/infer", json=body)
    asked = pb.ModelInferRequest(model_name=model)
    contents = asked.inputs.add(name="x", datatype=datatype, shape=shape).contents
    if datatype == "BYTES":
        contents.bytes_contents.extend(text.encode() for text in data)
    else:
        contents.fp64_contents.extend(row)
    for name in outputs:
        asked.outputs.add(name=name)
    with service.channel() as channel:
        if reply.status_code == 200:
            response = pb.ModelInferResponse.FromString(service.ask(asked.SerializeToString(), channel=channel))
            came(200, "OK")
            assert {
                one.name: list(one.contents.int64_contents) or list(one.contents.fp64_contents)
                for one in response.outputs
            } == {one["name"]: one["data"] for one in reply.json()["outputs"]}
        else:
            error = service.refused(asked.SerializeToString(), channel=channel)
            came(reply.status_code, error.code().name)
            assert error.code() is CODES[reply.status_code]
            assert error.details() == json.loads(reply.content).get("error", reply.json().get("detail"))
