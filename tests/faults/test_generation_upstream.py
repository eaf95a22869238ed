"""Texts from a language model that another server runs: what that does (section P)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.servers import SERVERS, eventually, free_port, tandem, tandem_serve
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, Front, is_problem
from tests.faults.upstream import MODEL, SECRET, TEXTS, Asked, scripted
from tests.faults.writing import (
    CHAT,
    COMPLETIONS,
    FIRST_S,
    GAP_S,
    MAX_BYTES,
    STREAM,
    WHOLE,
    Writing,
    error_of,
    events,
    log_of,
    refusal_of,
)


@fault("P02", sent="a redirect, also to an internal address", expected="502, not followed")
@pytest.mark.parametrize("path", [WHOLE, STREAM, COMPLETIONS])
def test_redirects_are_not_followed(writing: Writing, path: str, came: Came) -> None:
    target = f"http://127.0.0.1:{writing.port}/health/live"
    before = len(writing.upstream.asked)

    reply = writing.told(f"redirect {target}", path)

    status, text = refusal_of(reply, path)
    came(reply.status_code)
    assert status == 502
    assert target not in text
    assert len(writing.upstream.asked) == before + 1


@fault(
    "P09", sent="statuses, HTML, errors and garbage of the upstream", expected="502, or what it means; no word of it"
)
@pytest.mark.parametrize("path", [WHOLE, STREAM, CHAT])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("status400", 502), ("status500", 502), ("status429", 429), ("too-long", 422), ("html", 502),
        ("error200", 502), ("garbage", 502), ("no-json", 502), ("odd-json", 502), ("hangs-up", 502),
    ],
)  # fmt: skip
def test_what_is_no_answer(writing: Writing, path: str, script: str, status: int, came: Came) -> None:
    reply = writing.told(script, path)

    came(reply.status_code)
    told, text = refusal_of(reply, path)
    assert told == status
    assert SECRET not in text and "Traceback" not in text and "<html" not in text
    if reply.status_code == 429:
        assert reply.headers["retry-after"] == "7"


@fault(
    "P15", "P08", sent="streams that break off, fail, are no events, no UTF-8", expected="a final error event; counted"
)
@pytest.mark.parametrize(
    "script",
    ["broken", "late-error", "named-error", "bad-events", "nul", "bad-utf8", "cut-utf8", "one-line", "endless"],
)
def test_what_goes_wrong_in_a_stream(writing: Writing, script: str, came: Came) -> None:
    reply = writing.told(script, STREAM)

    problem = error_of(reply)
    came(problem["status"], f"{len(reply.content)} bytes")
    assert (problem["status"], problem["request_id"]) == (502, reply.headers["x-request-id"])
    assert events(reply.content)[0] == {"text": TEXTS[0]}
    assert len(reply.content) < MAX_BYTES
    (line,) = eventually(
        lambda: [line for line in log_of(writing) if line.get("request_id") == problem["request_id"]], "the line"
    )
    assert (line["status"], line["error"]) == (200, "UpstreamFailed")


def test_error_in_a_stream_of_openai_is_one_of_openai(writing: Writing) -> None:
    *_, error = events(writing.told("broken", CHAT, stream=True).content)

    assert error["error"]["type"] == "server_error"


@fault("P08", sent="an answer without end, in lines or in none", expected="502, of bounded memory")
@pytest.mark.parametrize("script", ["endless", "one-line"])
def test_answer_without_end(writing: Writing, script: str, came: Came) -> None:
    reply = writing.told(script, WHOLE)

    came(reply.status_code)
    is_problem(reply, 502)


@fault("P08", sent="text of several bytes a letter, one byte at a time, all ends of lines", expected="the text")
def test_split_letters(writing: Writing, came: Came) -> None:
    reply = writing.told("split", STREAM)

    came(reply.status_code)
    assert events(reply.content)[0] == {"text": "grün 漢字 🦉"}


@fault("P19", sent="50 MB of zeros in gzip, though no coding was asked for", expected="502, not unpacked")
@pytest.mark.parametrize("path", [WHOLE, STREAM])
def test_compressed_answer(writing: Writing, path: str, came: Came) -> None:
    reply = writing.told("zipped", path)

    status, _ = refusal_of(reply, path)
    came(status)
    assert status == 502


@fault("P06", sent="nothing, headers alone, one text, and then silence", expected="504, or a final error event")
@pytest.mark.parametrize(("script", "path"), [("silent", WHOLE), ("silent", STREAM), ("silent head", STREAM)])
def test_silence(writing: Writing, script: str, path: str, came: Came) -> None:
    reply = writing.told(script, path)

    problem = is_problem(reply, 504) if reply.status_code == 504 else error_of(reply)
    came(reply.status_code, problem["status"])
    assert problem["status"] == 504
    assert f"{FIRST_S:g} seconds" in problem["detail"]
    asked = writing.upstream.asked[-1]
    eventually(lambda: asked.left_at, "the upstream to be left")


@fault("P06", sent="a gap in the middle", expected="a final error event")
def test_gap(writing: Writing, came: Came) -> None:
    problem = error_of(writing.told("silent text", STREAM))

    came(problem["status"])
    assert (problem["status"], f"{GAP_S:g} seconds" in problem["detail"]) == (504, True)


# An upstream that is not there


@pytest.fixture(scope="module")
def alone(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Front, int]]:
    """A server whose upstream is down, and the port at which it would be."""
    folder, port = tmp_path_factory.mktemp("alone"), free_port()
    shutil.copytree(repository / "numbers", folder / "models" / "numbers")
    with tandem_serve(
        *(*SERVERS["uvicorn"], "--models", str(folder / "models")),
        *("--upstream", f"http://127.0.0.1:{port}/v1", "--upstream-model", MODEL),
        log=folder / "log",
    ) as running:
        yield Front("uvicorn", running), port


@fault("P05", "P18", sent="an upstream that is down, and comes back", expected="502; 503 and Retry-After; 200")
@pytest.mark.front("uvicorn")
def test_upstream_is_down(alone: tuple[Front, int], came: Came) -> None:
    front, port = alone

    replies = [front.ask("POST", WHOLE, json={"prompt": "hi"}) for _ in range(4)]
    well = [front.ask(json=GOOD).status_code, front.ask("GET", "/health/ready").status_code]
    with scripted(port) as upstream:
        eventually(lambda: front.ask("POST", STREAM, json={"prompt": "hi"}).status_code == 200, "the upstream")
        asked: list[Asked] = upstream.asked

    came(*(reply.status_code for reply in replies))
    assert [reply.status_code for reply in replies] == [502, 502, 502, 503]
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert well == [200, 200]
    assert len(asked) == 1


@fault("P03", sent="upstreams at metadata and link-local addresses, with users, of other schemes", expected="refused")
@pytest.mark.front("command line")
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1", "http://[fe80::1]/v1", "http://[::ffff:169.254.169.254]/v1", "http://0.0.0.0/v1",
        "http://[fd00:ec2::254]/", "http://224.0.0.1/v1", "http://user:pass@127.0.0.1/v1", "file:///etc/passwd",
        "http://127.0.0.1/v1?key=x", "127.0.0.1:11434",
    ],
)  # fmt: skip
def test_upstream_that_is_refused(url: str, tmp_path: Path, came: Came) -> None:
    done = tandem("serve", "--models", str(tmp_path), "--port", str(free_port()), "--upstream", url)

    came(done.stderr.strip().splitlines()[-1])
    assert done.returncode != 0
    assert "upstream: " in done.stderr
    assert "Traceback" not in done.stderr and "user:pass" not in done.stderr
