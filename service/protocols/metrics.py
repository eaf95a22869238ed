"""Figures of the service for Prometheus, and for whoever reads its formats."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

from service.core.contracts import Server
from service.core.futures import then
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Route, Scope


def metrics(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """As text, or as OpenMetrics where the scraper takes it."""
    return then(
        server.metrics(http.headers.get("accept", "")),
        lambda scraped: HttpReply(200, scraped[0], scraped[1]),
    )


ROUTES: Final = (Route("GET", "/metrics", metrics, Scope.METRICS, "Figures for Prometheus"),)
