"""gRPC beside every web server, as people start them: the estimators' own answers, and how processes begin and end."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from service.protocols.protos import inference_pb as pb
from service.protocols.v2.calls import EXTENSIONS
from tests.conformance import clients
from tests.conformance.gate import Gate, waiting
from tests.conformance.servers import SERVERS, UNTRIED, Running, eventually, free_port, running, tandem, tandem_serve
from tests.conformance.test_v2_clients import ASKED, QUESTIONS, Question
from tests.faults.cases import fault
from training.export import export

PATIENCE_S: Final = 60.0
X: Final = np.random.RandomState(0).normal(size=(20, 2))

# The field of typed contents, and how numpy calls the elements.
FIELDS: Final = {
    "FP64": ("fp64_contents", "float64"), "FP32": ("fp32_contents", "float32"), "INT64": ("int64_contents", "int64"),
    "INT8": ("int_contents", "int8"), "BOOL": ("bool_contents", "bool"), "BYTES": ("bytes_contents", "object"),
}  # fmt: skip


@contextmanager
def served(*arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[tuple[Running, str]]:
    """`tandem serve` with gRPC, and its address."""
    port = free_port()
    with tandem_serve(*arguments, "--grpc-port", str(port), log=log, environment=environment) as service:
        yield service, f"127.0.0.1:{port}"


def connected(address: str) -> grpc.Channel:
    """A connection of its own."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def method(channel: grpc.Channel, name: str) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(
        f"/inference.GRPCInferenceService/{name}",
        request_serializer=getattr(pb, f"{name}Request").SerializeToString,
        response_deserializer=getattr(pb, f"{name}Response").FromString,
    )


def infer(address: str, request: Any) -> Any:
    with connected(address) as channel:
        return method(channel, "ModelInfer")(request, timeout=PATIENCE_S)


# -- answers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(repository: Path) -> dict[str, Any]:
    """What the estimators answer in this process, by model."""
    return {
        question.model: question.expected(joblib.load(repository / question.model / "1" / "model.joblib"))
        for question in QUESTIONS
    }


@pytest.fixture(scope="module", params=SERVERS)
def address(request: pytest.FixtureRequest, estimators: Mapping[str, tuple[Running, int]]) -> str:
    return f"127.0.0.1:{estimators[request.param][1]}"


@pytest.fixture(scope="module")
def told_triton(address: str) -> Any:
    """What Triton's client prints of this server."""
    return clients.ask("triton", "triton_grpc.py", address, questions=ASKED)


def request_of(question: Question, *, is_raw: bool) -> Any:
    asked = question.asked()
    request = pb.ModelInferRequest(model_name=question.model)
    for tensor in asked["inputs"]:
        entry = request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        field, dtype = FIELDS[tensor["datatype"]]
        data = [value.encode() if dtype == "object" else value for value in tensor["data"]]
        if not is_raw:
            getattr(entry.contents, field).extend(data)
        elif dtype == "object":
            request.raw_input_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in data))
        else:
            request.raw_input_contents.append(np.array(data, dtype=dtype).tobytes())
    for name in question.outputs:
        request.outputs.add(name=name)
    return request


def plain(response: Any, *, is_raw: bool) -> dict[str, Any]:
    """The outputs of a response in the form of `Question.expected`."""
    found = {}
    for place, output in enumerate(response.outputs):
        field, dtype = FIELDS[output.datatype]
        if not is_raw:
            data = list(getattr(output.contents, field))
        elif dtype == "object":
            data = texts(response.raw_output_contents[place])
        else:
            data = np.frombuffer(response.raw_output_contents[place], dtype=dtype).tolist()
        data = [value.decode() if isinstance(value, bytes) else value for value in data]
        found[output.name] = {"dtype": dtype, "shape": list(output.shape), "data": data}
    return found


def texts(content: bytes) -> list[bytes]:
    found = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + size])
        content = content[4 + size :]
    return found


@fault("R14", sent="every model's rows over gRPC", expected="the estimator's own numbers, as over HTTP")
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("question", [pytest.param(question, id=question.model) for question in QUESTIONS])
def test_answers_equal_the_estimators_own(
    question: Question, is_raw: bool, address: str, expected: dict[str, Any]
) -> None:
    response = infer(address, request_of(question, is_raw=is_raw))

    assert plain(response, is_raw=is_raw) == expected[question.model]


def test_tritonclient_is_answered(told_triton: Any, expected: dict[str, Any]) -> None:
    told = told_triton

    for way in ("chosen", "gzip"):
        assert told[way] == expected, way
    assert told["default"] == {
        model: {name: values for name, values in outputs.items() if name in ("predict", "transform")}
        for model, outputs in expected.items()
    }
    assert told["stream"]["answers"] == expected
    assert "there is no such model" in told["stream"]["refusal"]
    assert (told["live"], told["ready"], told["ready models"]) == (True, True, [True] * len(QUESTIONS))
    assert told["extensions"] == list(EXTENSIONS)
    assert told["health"] == ["SERVING"] * 3
    assert told["refusal"][0] == "StatusCode.NOT_FOUND"
    assert told["load"][0] == "StatusCode.PERMISSION_DENIED"
    assert told["statistics"][0] == "StatusCode.UNIMPLEMENTED"
    assert {(one["name"], one["version"], one["state"]) for one in told["index"]["models"]} >= {
        (question.model, "1", "READY") for question in QUESTIONS
    }


def test_tritonclient_finds_in_metadata_and_configuration_what_to_send(told_triton: Any) -> None:
    told = told_triton

    for question in QUESTIONS:
        sent = [(one["datatype"], [-1, *one["shape"][1:]]) for one in question.asked()["inputs"]]
        about, config = told["metadata"][question.model], told["config"][question.model]["config"]
        assert [(one["datatype"], [int(size) for size in one["shape"]]) for one in about["inputs"]] == sent
        assert [
            (one["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES"), [int(size) for size in one["dims"]])
            for one in config["input"]
        ] == sent
        assert {one["name"] for one in config["output"]} >= set(question.outputs)


def test_kserve_client_is_answered(address: str, expected: dict[str, Any]) -> None:
    told = clients.ask("kserve", "kserve_grpc.py", address, questions=ASKED)

    assert told["typed"] == expected
    assert told["raw"] == expected
    assert (told["live"], told["ready"], told["ready models"]) == (True, True, [True] * len(QUESTIONS))


# -- processes -----------------------------------------------------------------------------------

needs_proc: Final = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells of its sockets")


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A repository with one model, `line`, that answers the first number of each row."""
    export(LinearRegression().fit(X, X[:, 0]), X, name="line", repository=tmp_path / "models")
    return tmp_path / "models"


def row(model: str) -> Any:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP64", shape=[1, 2]).contents.fp64_contents.extend([1.0, 1.0])
    return request


def answered(address: str) -> float | None:
    """The answer of `line`; a process that just started may still be loading, or not be there."""
    try:
        return round(infer(address, row("line")).outputs[0].contents.fp64_contents[0], 6)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return None
        raise


LISTENING: Final = "0A"


def sockets(address: str, state: str) -> int:
    """How many sockets of this port are in this state, as Linux lists them; grpc's are of IPv6, and take IPv4 too."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    listed = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return sum(entry[1].endswith(port) and entry[3] == state for entry in listed)


@needs_proc
@pytest.mark.parametrize("server", SERVERS)
def test_every_worker_answers(server: str, line: Path, tmp_path: Path) -> None:
    arguments = (*SERVERS[server], "--models", str(line), "--workers", "2")
    with served(*arguments, log=tmp_path / "log") as (_, address):
        eventually(lambda: sockets(address, LISTENING) == 2, "both workers to listen")

        answers = [eventually(lambda: answered(address), "an answer") for _ in range(20)]

    assert answers == [1.0] * 20


@fault("R15", sent="SIGTERM while one call computes and one waits", expected="both answered, exit code 0")
@needs_proc
@pytest.mark.parametrize("server", SERVERS)
def test_what_is_being_computed_at_sigterm_is_answered(server: str, tmp_path: Path) -> None:
    """Two requests of one model, so that the second has not begun when the first is let go."""
    export(Gate(str(tmp_path)).fit(X), X, name="gate", repository=tmp_path / "models")
    arguments = ("--models", str(tmp_path / "models"), "--trust", "tests.conformance.gate.Gate")
    with (
        served(*SERVERS[server], *arguments, log=tmp_path / "log", environment=UNTRIED) as (service, address),
        connected(address) as channel,
    ):
        (tmp_path / "closed").touch()
        try:
            asked = [method(channel, "ModelInfer").future(row("gate"), timeout=PATIENCE_S)]
            eventually(lambda: waiting(tmp_path) == 1, "the first request to be under way")
            asked.append(method(channel, "ModelInfer").future(row("gate"), timeout=PATIENCE_S))
            # What comes on one connection is taken in one after the other: with the third so was the second.
            method(channel, "ServerLive")(pb.ServerLiveRequest(), timeout=PATIENCE_S)
            service.terminate()
            eventually(lambda: sockets(address, LISTENING) == 0, "the server to listen no more")
        finally:
            (tmp_path / "closed").unlink()
        values = [future.result().outputs[0].contents.fp64_contents[0] for future in asked]
        exit_code = service.exit_code()

    assert (values, exit_code) == ([2.0, 2.0], 0)


@fault("R15", sent="SIGTERM under load", expected="answers, or UNAVAILABLE or CANCELLED")
@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_under_load_gives_answers_or_word_to_try_again(server: str, line: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                seen.append(infer(address, row("line")).outputs[0].contents.fp64_contents[0])
            except grpc.RpcError as error:
                seen.append(error.code())

    with served(*SERVERS[server], "--models", str(line), log=tmp_path / "log") as (service, address):
        callers = [threading.Thread(target=call) for _ in range(2)]
        for caller in callers:
            caller.start()
        try:
            eventually(lambda: len(seen) > 20, "some load")
            service.terminate()
            exit_code = service.exit_code()
        finally:
            stop.set()
            for caller in callers:
                caller.join()

    codes = {one for one in seen if isinstance(one, grpc.StatusCode)}
    assert exit_code == 0, service.told()
    # grpc cancels what reaches a connection while it is being closed.
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert {round(one, 6) for one in seen if not isinstance(one, grpc.StatusCode)} == {1.0}


@fault("W19", sent="gunicorn --preload with gRPC, and a second fork", expected="no deadlock, both workers answer")
@needs_proc
def test_gunicorn_may_load_the_app_before_it_forks_and_fork_again(line: Path, tmp_path: Path) -> None:
    grpc_port = free_port()
    address = f"127.0.0.1:{grpc_port}"

    def start(port: int) -> tuple[str, ...]:
        options = ("--preload", "-w", "1", "-b", f"127.0.0.1:{port}", "--pid", str(tmp_path / "pid"))
        return (sys.executable, "-m", "gunicorn", *options, "service.entrypoints.flask_app:app")

    environment = {"TANDEM_MODELS": str(line), "TANDEM_GRPC_PORT": str(grpc_port)}
    with running(start, log=tmp_path / "log", environment=environment) as service:
        first = eventually(lambda: answered(address), "an answer of the first worker")
        (worker,) = children(service.process.pid)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: children(service.process.pid) not in ([], [worker]), "another worker")

        second = eventually(lambda: answered(address), "an answer of the second worker")

    assert (first, second) == (1.0, 1.0)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# -- what cannot be served -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        pytest.param(("--port", "8123", "--grpc-port", "8123"), "a port of its own", id="one port for both"),
        pytest.param(("--grpc-port", "0"), "--grpc-port", id="no port"),
        pytest.param(
            ("--framework", "flask", "--server", "gunicorn", "--worker-class", "gevent", "--grpc-port", "8124"),
            "--worker-class gthread",
            id="gevent",
        ),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments: tuple[str, ...], what: str, line: Path) -> None:
    told = tandem("serve", "--models", str(line), *arguments)

    assert told.returncode in (1, 2)
    last = told.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and what in last
    assert "Traceback" not in told.stderr


def test_a_port_that_is_taken_is_said_in_one_line(line: Path, tmp_path: Path) -> None:
    with served("--models", str(line), log=tmp_path / "log") as (_, address):
        port = address.rpartition(":")[2]

        told = tandem("serve", "--models", str(line), "--port", str(free_port()), "--grpc-port", port)

    assert told.returncode == 1
    assert told.stderr.strip().splitlines()[-1].startswith(f"Error: cannot listen on 127.0.0.1 port {port}: ")
