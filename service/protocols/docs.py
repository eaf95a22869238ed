"""Swagger UI at `/docs`, with every file from this machine: it works without the internet.

The files are those of the distribution `fastapi-swagger`, read without importing it.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from service.core.contracts import Server
from service.core.errors import UnknownRoute
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.route import Route, Scope

# Addresses are relative, so that the page also works under a prefix in somebody else's app.
PAGE: Final = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tandem</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START: Final = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""

ASSETS: Final = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


def page(server: Server, http: HttpRequest) -> HttpReply:
    return HttpReply(200, PAGE, "text/html; charset=utf-8")


def asset(server: Server, http: HttpRequest) -> HttpReply:
    name = http.path_params["file"]
    if name == "start.js":
        return HttpReply(200, START, "text/javascript; charset=utf-8")
    if name not in ASSETS:
        raise UnknownRoute
    return HttpReply(200, _read(name), ASSETS[name], {"cache-control": "max-age=86400"})


@cache
def _read(name: str) -> bytes:
    return Path(str(distribution("fastapi-swagger").locate_file(f"fastapi_swagger/resources/{name}"))).read_bytes()


ROUTES = (
    Route("GET", "/docs", page, Scope.PREDICT, "This page"),
    Route("GET", "/docs/{file}", asset, Scope.PREDICT, "A file of the page"),
)
