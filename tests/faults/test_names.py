"""Section N: names of models, versions and paths. N05 and N07 are shown where models are loaded."""

from __future__ import annotations

import json
import string
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.core.artefact_errors import NameInvalid
from service.core.names import check_name
from tests.conformance.wire import Reply, request
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, Front, is_problem

BODY: Final = json.dumps(GOOD).encode()
JSON: Final = (("Content-Type", "application/json"),)


def predict(front: Front, name: str) -> Reply:
    """`name` as it stands in the path."""
    return front.post(BODY, path=f"/models/{name}/predict")


def without_id(reply: Reply) -> Any:
    content = is_problem(reply)
    del content["request_id"]
    return content


# As they stand in a path. Those with a slash in them are other paths, or none.
STRANGE: Final = [
    "..", "%2e%2e", "..%5cx", "%252e", "C:%5c", "%00", "%0a", "a%0d%0aX-Injected:%201", "%09", "%20", "%20%20",
    "n" * 300, "%F0%9F%A6%8A", "%E2%80%8Fnumbers", "CON", "NUL", "aux.txt", "%FF", "~", "$HOME", "%24%28id%29",
    "numbers%20", "-rf", "%7B%7B7*7%7D%7D", "numbers.", "%EF%BC%8E%EF%BC%8E",
]  # fmt: skip


@fault("N01", sent="names that mean something to a file system, a shell, a log or a screen",
       expected="404, the same body as for any unknown name")  # fmt: skip
@pytest.mark.parametrize("name", STRANGE, ids=lambda name: name[:20])
def test_strange_name(front: Front, came: Came, name: str) -> None:
    reply = predict(front, name)

    came(reply.status)
    assert without_id(reply) == without_id(predict(front, "nobody"))
    assert reply.status == 404
    assert "x-injected" not in reply.headers


@fault("N01", sent="names with slashes in them, plain and encoded", expected="404, no file")
@pytest.mark.parametrize(
    "name",
    ["../x", "../../etc/passwd", "%2e%2e%2f", "..%2f..%2fetc%2fpasswd", "/etc", "%2fetc", "", "a/../numbers", "."],
)
def test_name_with_a_slash(front: Front, came: Came, name: str) -> None:
    reply = predict(front, name)

    came(reply.status)
    is_problem(reply, 404)


@fault("N01", sent="names made up by hypothesis", expected="404, never 5xx; the log stays one object per line")
def test_any_name(front: Front, came: Came) -> None:
    statuses: set[int] = set()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(name=st.text(min_size=1, max_size=30) | st.binary(min_size=1, max_size=30))
    def holds(name: str | bytes) -> None:
        spelt = quote(name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name, safe="")
        reply = predict(front, spelt)
        statuses.add(reply.status)
        is_problem(reply, 404)

    holds()
    came(*statuses)


@fault("N02", sent="model.v1, a..b, ... as names of models and labels", expected="one pattern, everywhere")
@pytest.mark.parametrize(
    ("name", "is_one"), [("model.v1", True), ("odd.names_1", True), ("a..b", False), ("...", False), (".a", False)]
)
@pytest.mark.front("service")
def test_one_pattern_for_names(came: Came, name: str, is_one: bool) -> None:
    try:
        taken = check_name(name) == name
    except NameInvalid:
        taken = False

    came("a name" if taken else "none")
    assert taken is is_one


@fault("N02", sent="a request to a model with a dot in its name, and to names that none can have", expected="200; 404")
def test_names_in_requests(front: Front, came: Came) -> None:
    dotted = front.ask("GET", "/models/odd.names_1").status_code
    others = [front.ask("GET", f"/models/{name}").status_code for name in ("model.v1", "a..b", "...")]

    came(dotted, *others)
    assert (dotted, others) == (200, [404] * 3)


@fault("N03", sent="versions 0, -1, 01, 1e3, `latest `, 30 digits", expected="404")
@pytest.mark.parametrize(
    "version",
    ["0", "-1", "01", "1e3", "latest%20", "9" * 30, "1.0", "+1", "%201", "1%00", "%D9%A1", "2147483648", "9" * 3000],
)
def test_strange_version(front: Front, came: Came, version: str) -> None:
    reply = front.post(b'{"x0": 1, "x1": 2}', path=f"/models/versions/versions/{version}/predict")

    came(reply.status)
    is_problem(reply, 404)


@fault("N04", sent="2 000 different unknown names", expected="404; memory does not grow")
def test_flood_of_unknown_names(front: Front, came: Came) -> None:
    def flood(names: range) -> None:
        messages = [request("POST", f"/models/nobody-{at:x}-{'n' * 60}/predict", BODY, headers=JSON) for at in names]
        assert {reply.status for reply in front.send(*messages)} == {404}

    flood(range(500))  # from here on caches are full
    before = front.memory_bytes()

    flood(range(500, 2000))

    grown = front.memory_bytes() - before
    came(f"{grown // 1024} KiB")
    # A series of metrics or a version's state of each would take several KiB: 5 MB and more.
    assert grown < 4 * 2**20


@fault("N06", sent="names in other letters", expected="404")
@pytest.mark.parametrize("name", ["Numbers", "NUMBERS", "numberS", "ｎumbers", "nu%C2%ADmbers"])
def test_letters_matter(front: Front, came: Came, name: str) -> None:
    reply = predict(front, quote(name, safe="%"))

    came(reply.status)
    is_problem(reply, 404)


# A target, and the status that every front gives it.
PATHS: Final = {
    "//models/numbers/predict": 404,
    "/models//numbers/predict": 404,
    "/models/numbers//predict": 404,
    "/models/numbers/predict/": 404,
    "/models/numbers/predict//": 404,
    "/models/numbers/predict;x=y": 404,
    "/models/numbers;x=y/predict": 404,
    "/models;x=y/numbers/predict": 404,
    "/./models/numbers/predict": 404,
    "/models/./numbers/predict": 404,
    "/models/x/../numbers/predict": 404,
    "/models/numbers/%2e/predict": 404,
    "/models%5Cnumbers%5Cpredict": 404,
    "/%2fmodels/numbers/predict": 404,
    "/models/numbers/predict%20": 404,
    "/models/numbers/predict%00": 404,
    "/models/numbers/predict%0a": 404,
    "/MODELS/numbers/predict": 404,
    "//tandem.test/%2e%2e": 404,
    "/\\tandem.test": 404,
    # Percent-coding is undone once, before routes are looked for: these are spellings of the one route.
    "/models/numbers%2Fpredict": 200,
    "/%6d%6f%64%65%6c%73/numbers/predict": 200,
    "/models/%6Eumbers/predict": 200,
    "/models/numbers/predict?": 200,
    "/models/numbers/predict?x=//y": 200,
}


@fault("N08", sent="two slashes, trailing slashes, ;x=y, encoded slashes, /./, encoded letters",
       expected="404, or the one route; never a redirect")  # fmt: skip
@pytest.mark.parametrize(("target", "status"), PATHS.items())
def test_spellings_of_a_path(front: Front, came: Came, target: str, status: int) -> None:
    reply = front.send(request("POST", target, BODY, headers=JSON))[0]

    came(reply.status)
    assert reply.status == status, reply.body
    assert "location" not in reply.headers
    if status == 200:
        assert json.loads(reply.body)["predictions"] == KNOWN
    else:
        is_problem(reply)


@fault("N08", "C13", sent="headers made up by hypothesis", expected="200 or 4xx, never 5xx")
def test_any_headers(front: Front, came: Came) -> None:
    statuses: set[int] = set()
    values = st.text(string.ascii_letters + string.digits + string.punctuation + " \t\x80\xff", max_size=40)
    names = st.sampled_from(
        ["Accept", "Content-Type", "Content-Encoding", "Accept-Encoding", "X-Request-Id", "X-Request-Timeout-Ms",
         "X-Amzn-SageMaker-Custom-Attributes", "Inference-Header-Content-Length", "traceparent", "Range", "Origin"]
    )  # fmt: skip

    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(headers=st.lists(st.tuples(names, values), max_size=4))
    def holds(headers: list[tuple[str, str]]) -> None:
        reply = front.post(BODY, *(headers or JSON))
        statuses.add(reply.status)
        assert reply.status < 500, (headers, reply.body)

    holds()
    came(*sorted(statuses))
