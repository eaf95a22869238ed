"""Text generation by a real server, llama.cpp's, behind each of ours, asked by OpenAI's client and by httpx.

The model is tiny and talks nonsense, but the same nonsense to everybody who asks the same: what comes through Tandem
must be what llama.cpp answers when it is asked directly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.conformance import clients
from tests.conformance.llm.upstream import ENVIRONMENT, MODEL, LlamaServer, llama_server
from tests.conformance.servers import CLIENT, SERVERS, Running, eventually, tandem, tandem_serve
from training import export

pytestmark = clients.needs(ENVIRONMENT)

# As a person writes it, with characters of one to four bytes.
PROMPT: Final = "How are you, Grüße 日本 🙂"
MESSAGES: Final = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": PROMPT},
    {"role": "assistant", "content": "so it is"},
    {"role": "user", "content": "now what"},
]
# Longer than any test waits, if nobody ends it.
ENDLESS: Final = 30_000


def question(route: str, **arguments: Any) -> dict[str, Any]:
    """To the client, about the same text by both routes; greedy, and of 16 tokens, unless it says otherwise."""
    asked = {"messages": MESSAGES} if route == "chat" else {"prompt": PROMPT}
    return {"route": route, "model": MODEL, "max_tokens": 16, "temperature": 0, **asked, **arguments}


QUESTIONS: Final = [
    question(route, **arguments)
    for route in ("completions", "chat")
    for arguments in (
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 1.5, "top_p": 0.9, "seed": 7},
        {"temperature": 1.5, "seed": 8, "stream": True},
        {"stop": ["e"], "max_tokens": 64},
        {"max_tokens": 1},
    )
]
# By the word that the refusal must contain.
REFUSED: Final = {
    "max_tokens": question("completions", max_tokens="many"),
    "api_base": question("completions", extra_body={"api_base": "http://127.0.0.1:1"}),
    "temperature": question("chat", temperature=99),
    "tools": question("chat", tools=[{"type": "function", "function": {"name": "run", "parameters": {}}}]),
    "image_url": question(
        "chat", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}]
    ),
}
SCOPES: Final = ("generate", "predict")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llama_server(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def keys(keys_file: Path) -> Mapping[str, str]:
    """A key for each of two scopes."""

    def key(scope: str) -> str:
        made = tandem("api-keys", "create", scope, "--scope", scope, "--keys", str(keys_file))
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    return {scope: key(scope) for scope in SCOPES}


@pytest.fixture(scope="module")
def servers(
    upstream: LlamaServer, keys: Mapping[str, str], keys_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Running]]:
    """One of each kind before the same upstream, with keys."""
    models, logs = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("logs")
    rows = np.arange(12.0).reshape(6, 2)
    export(LinearRegression().fit(rows, rows[:, 0]), rows, name="line", repository=models)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                tandem_serve(
                    *arguments,
                    *("--models", str(models), "--keys", str(keys_file)),
                    *("--upstream", upstream.api, "--upstream-model", MODEL),
                    log=logs / name,
                    environment={"TANDEM_UPSTREAM_MAX_TOKENS": str(ENDLESS)},
                )
            )
            for name, arguments in SERVERS.items()
        }


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Mapping[str, Running]) -> Running:
    return servers[request.param]


@pytest.fixture(scope="module")
def caller(server: Running, keys: Mapping[str, str]) -> Iterator[httpx.Client]:
    """May generate text."""
    authorized = {"Authorization": f"Bearer {keys['generate']}"}
    with httpx.Client(base_url=server.url, headers=authorized, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def told(server: Running, keys: Mapping[str, str]) -> Any:
    """What both kinds of OpenAI's client get from Tandem."""
    strangers = [
        question("chat", stream=True, api_key="tandem_nobody"),
        question("completions", api_key=keys["predict"]),
    ]
    return ask(f"{server.url}/v1", keys["generate"], [*QUESTIONS, *REFUSED.values(), *strangers])


@pytest.fixture(scope="module")
def expected(upstream: LlamaServer) -> Any:
    """What OpenAI's client gets from the upstream."""
    return ask(upstream.api, "none", QUESTIONS)["OpenAI"]


def ask(base_url: str, key: str, questions: list[dict[str, Any]]) -> Any:
    return clients.ask(ENVIRONMENT, "openai_generation.py", base_url, key, questions=questions)


def test_openai_client_gets_from_tandem_what_llama_cpp_says(told: Any, expected: Any) -> None:
    for kind in ("OpenAI", "AsyncOpenAI"):
        for asked, got, wanted in zip(QUESTIONS, told[kind][: len(QUESTIONS)], expected, strict=True):
            assert got == wanted, (kind, asked)


def test_upstream_says_enough_to_tell_answers_apart(expected: Any) -> None:
    texts = {answer["text"] for answer in expected}

    assert len(texts) > 6  # by route, seed and length
    assert any(len(text.encode()) > len(text) for text in texts)
    assert [answer["pieces"] for answer in expected[:2]] == [1, 16]
    assert {reason for answer in expected for reason in answer["finish_reasons"]} == {"length", "stop"}


def test_openai_client_is_told_what_was_refused(told: Any) -> None:
    for answers in told.values():
        for (name, asked), got in zip(REFUSED.items(), answers[len(QUESTIONS) : -2], strict=True):
            assert got.get("error") in ("BadRequestError", "UnprocessableEntityError"), (asked, got)
            assert name in got["message"], got
            assert got["type"], got


def test_openai_client_needs_a_key_for_text_generation(told: Any) -> None:
    for answers in told.values():
        stranger, without_scope = answers[-2:]
        assert (stranger["error"], stranger["status"]) == ("AuthenticationError", 401)
        assert (without_scope["error"], without_scope["status"]) == ("PermissionDeniedError", 403)
        assert "generate" in without_scope["message"]


@pytest.mark.parametrize(
    ("asked", "route"),
    [({"prompt": PROMPT}, "completions"), ({"messages": MESSAGES}, "chat/completions")],
    ids=["prompt", "messages"],
)
class TestGenerate:
    def test_text_is_that_of_the_upstream(
        self, asked: dict[str, Any], route: str, caller: httpx.Client, upstream: LlamaServer
    ) -> None:
        more = {"max_tokens": 12, "temperature": 0.8, "seed": 3}

        reply = caller.post("/v1/generate", json={**asked, **more})

        assert reply.status_code == 200, reply.text
        answer, direct = reply.json(), upstream.post(route, **asked, **more)
        assert answer["text"] == text_of(direct)
        assert answer["finish_reason"] == direct["choices"][0]["finish_reason"] == "length"
        assert answer["model"] == MODEL
        assert answer["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"] == 12

    def test_stream_comes_in_order_and_is_the_same_text(
        self, asked: dict[str, Any], route: str, caller: httpx.Client, upstream: LlamaServer
    ) -> None:
        more = {"max_tokens": 12, "temperature": 0}

        with caller.stream("POST", "/v1/generate/stream", json={**asked, **more}) as reply:
            lines = [line for line in reply.iter_lines() if line.startswith("data: ")]

        assert reply.status_code == 200
        assert reply.headers["content-type"].partition(";")[0] == "text/event-stream"
        *pieces, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert lines[-1] == "data: [DONE]"
        assert len(pieces) == 12  # one for each token
        assert "".join(piece["text"] for piece in pieces) == text_of(upstream.post(route, **asked, **more))
        assert last["finish_reason"] == "length"
        assert last["usage"]["completion_tokens"] == 12

    def test_caller_who_leaves_frees_the_slot(
        self, asked: dict[str, Any], route: str, caller: httpx.Client, upstream: LlamaServer
    ) -> None:
        before = upstream.tokens_made()

        with caller.stream("POST", "/v1/generate/stream", json={**asked, "max_tokens": ENDLESS}) as reply:
            lines = reply.iter_lines()
            assert next(line for line in lines if line.startswith("data: "))
            assert upstream.generating() == 1

        eventually(lambda: upstream.generating() == 0, "the slot to be free again")
        assert upstream.tokens_made() - before < ENDLESS


def test_generate_needs_a_key_with_its_scope(server: Running, keys: Mapping[str, str]) -> None:
    statuses = [
        CLIENT.post(f"{server.url}{path}", json={"prompt": PROMPT, "max_tokens": 1}, headers=headers).status_code
        for path in ("/v1/generate", "/v1/generate/stream", "/v1/completions", "/v1/chat/completions")
        for headers in ({}, {"Authorization": f"Bearer {keys['predict']}"})
    ]

    assert statuses == [401, 403] * 4


def text_of(answer: dict[str, Any]) -> str:
    """Of a reply of either route of the upstream."""
    (choice,) = answer["choices"]
    text: str = choice["text"] if "text" in choice else choice["message"]["content"]
    return text
