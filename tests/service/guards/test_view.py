from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any

import pytest

from service.core.callers import ANYBODY, Caller, Scope
from service.core.errors import UnknownModel
from service.core.messages import ModelSummary, Target
from service.guards.view import View, seen_by


class Server:
    """Says which names it was asked for; two models, the first of them the default one."""

    def __init__(self, default: str | None = "churn") -> None:
        self.default = default
        self.asked: list[Any] = []

    def infer(self, target: Target, *_: Any, **__: Any) -> Future[Any]:
        self.asked.append(target)
        return Future()

    def hold(self, target: Target, *_: Any) -> Any:
        self.asked.append(target)

    def version(self, target: Target) -> Any:
        if target.model is None and self.default is None:
            raise UnknownModel("2 models are served and none is the default")
        self.asked.append(target)
        return _Named(target.model or str(self.default))

    def models(self) -> list[ModelSummary]:
        return [ModelSummary(name, (1,), {}, "live", 1, {}) for name in ("churn", "iris")]

    def served(self) -> list[Any]:
        return [_Named("churn"), _Named("iris")]

    def describe(self, model: str) -> dict[str, Any]:
        return {"name": model}

    def is_ready(self) -> bool:
        return True

    def metrics(self, accept: str) -> Future[tuple[bytes, str]]:
        return Future()

    def load(self, model: str, *, again: bool = True) -> Future[None]:
        self.asked.append(model)
        return Future()

    def unload(self, model: str) -> Future[bool]:
        self.asked.append(model)
        return Future()

    def promote(self, model: str, version: int) -> Future[None]:
        self.asked.append(model)
        return Future()


class _Named:
    def __init__(self, model: str) -> None:
        self.model = model


def view(server: Server, *visible: str) -> View:
    return View(server, frozenset(visible))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        pytest.param(Target("iris", 3), Target("iris", 3), id="one of its own"),
        pytest.param(Target("churn", 3), Target("", 3), id="another as an unknown one"),
        pytest.param(Target(), Target(""), id="the default one, which is another"),
    ],
)
def test_only_visible_models_are_asked(target: Target, asked: Target) -> None:
    server = Server()

    view(server, "iris").infer(target, lambda _: ...)  # type: ignore[arg-type,return-value]

    assert server.asked[-1] == asked


def test_default_model_is_asked_by_its_name_where_it_is_visible() -> None:
    server = Server()

    view(server, "churn").infer(Target(label="stable"), lambda _: ...)  # type: ignore[arg-type,return-value]

    assert server.asked[-1] == Target("churn", label="stable")


def test_without_a_default_it_is_not_said_how_many_models_there_are() -> None:
    server = Server(default=None)

    view(server, "churn").infer(Target(), lambda _: ...)  # type: ignore[arg-type,return-value]

    assert server.asked == [Target("")]


@pytest.mark.parametrize(("asked", "found"), [(Target("iris", 2), Target("iris", 2)), (Target("churn"), Target(""))])
def test_only_visible_models_are_held(asked: Target, found: Target) -> None:
    server = Server()

    view(server, "iris").hold(asked)

    assert server.asked == [found]


def test_lists_leave_the_others_out() -> None:
    seen = view(Server(), "iris", "unheard-of")

    assert [model.name for model in seen.models()] == ["iris"]
    assert [served.model for served in seen.served()] == ["iris"]
    assert "churn" not in json.dumps(seen.describe("churn"))


@pytest.mark.parametrize("ask", ["load", "unload", "promote"])
def test_only_visible_models_are_changed(ask: str) -> None:
    server = Server()
    more = (1,) if ask == "promote" else ()

    for model in ("iris", "churn"):
        getattr(view(server, "iris"), ask)(model, *more)

    assert server.asked == ["iris", ""]


def test_who_may_ask_all_models_sees_the_service_itself() -> None:
    server: Any = Server()

    assert seen_by(server, ANYBODY) is server
    assert seen_by(server, Caller("shop", frozenset({Scope.PREDICT}), frozenset({"iris"}))).models() != []
    assert seen_by(server, None).models() == []
