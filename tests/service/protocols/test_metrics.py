from __future__ import annotations

from concurrent.futures import Future

from service.protocols.http import HttpReply
from service.protocols.metrics import metrics
from service.protocols.route import Scope
from service.protocols.routes import by_path
from tests.service.protocols.fake_server import FakeServer, get


def test_reply_is_what_the_service_makes_of_the_accept_header() -> None:
    http = get("/metrics")
    http.headers = {"accept": "application/openmetrics-text"}

    answered: Future[HttpReply] = metrics(FakeServer(), http)

    reply = answered.result(timeout=0)
    assert (reply.status, reply.content_type) == (200, "text/plain")
    assert reply.body == b"asked for application/openmetrics-text"


def test_route_has_a_scope_of_its_own() -> None:
    assert by_path()["/metrics"]["GET"].scope is Scope.METRICS
