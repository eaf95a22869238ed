from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from service.protocols.routes import by_path
from tests.conformance import dialects
from tests.conformance.corpus import CASES, LEFT_TO_THE_SERVER, Case, case, own_methods
from tests.conformance.servers import Running
from tests.conformance.wire import Reply, request, talk


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in (*CASES, *dialects.CASES)])
def test_every_server_answers_with_the_same_bytes(one: Case, servers: Mapping[str, Running]) -> None:
    replies = {name: talk(server.port, one.messages, at_once=one.at_once) for name, server in servers.items()}

    statuses = {name: tuple(reply.status for reply in told) for name, told in replies.items()}
    assert statuses == dict.fromkeys(servers, one.statuses), replies
    compared = {name: [reply.compared for reply in told] for name, told in replies.items()}
    assert compared == dict.fromkeys(servers, compared["uvicorn"])


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in CASES])
def test_every_reply_says_what_it_is(one: Case, servers: Mapping[str, Running]) -> None:
    asked = [re.search(rb"X-Request-Id: (\S+)", message) for message in one.messages]

    replies = talk(servers["uvicorn"].port, one.messages, at_once=one.at_once)

    for reply, found in zip(replies, asked, strict=True):
        assert found is not None and reply.headers["x-request-id"] == found[1].decode()
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.status < 400 or reply.headers["content-type"] == "application/problem+json"


def test_the_corpus_is_large_and_names_every_route_with_every_method() -> None:
    names = [one.name for one in CASES]

    assert len(names) >= 400
    assert len(set(names)) == len(names)
    assert {f"{method} {path}" for path in by_path() for method in own_methods(path)} <= set(names)


@pytest.mark.parametrize("given", ["", "gr\xf6\xdfe", "a b", "x" * 129, "<script>", 'a"b', "%0d%0aSet-Cookie:x"])
def test_a_request_id_unfit_for_a_log_line_is_replaced(given: str, servers: Mapping[str, Running]) -> None:
    message = request("GET", "/nowhere", headers=(("X-Request-Id", given),))

    replies = [talk(server.port, [message])[0] for server in servers.values()]

    for reply in replies:
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
        assert f'"request_id":"{reply.headers["x-request-id"]}"'.encode() in reply.body


@pytest.mark.parametrize("name", LEFT_TO_THE_SERVER)
def test_what_the_servers_decide_themselves_harms_none_of_them(name: str, servers: Mapping[str, Running]) -> None:
    message, _ = LEFT_TO_THE_SERVER[name]
    afterwards = case("afterwards", 200, "/health/live").messages

    replies = {server: talk(running.port, [message])[0] for server, running in servers.items()}

    assert all(reply.status < 500 or reply.status == 501 for reply in replies.values()), replies
    assert len({repr(reply.compared) for reply in replies.values()}) > 1, "alike by now: it belongs to the corpus"
    assert [talk(running.port, afterwards)[0].status for running in servers.values()] == [200, 200, 200]


def test_a_malformed_chunk_is_the_callers_fault(servers: Mapping[str, Running]) -> None:
    message, _ = LEFT_TO_THE_SERVER["a malformed chunk"]

    replies: list[Reply] = [talk(server.port, [message])[0] for server in servers.values()]

    assert [reply.status for reply in replies] == [400, 400, 400]
