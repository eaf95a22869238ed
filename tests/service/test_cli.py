from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path

import click
import joblib
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from service import cli
from service.cli import model_rules, tandem
from service.core.callers import Caller, Rate, Scope
from service.entrypoints.servers import Binding
from service.guards.hosts import LOOPBACK
from service.guards.keys import caller_with, parse_keys
from service.settings import Settings
from tests.faults.cases import fault


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        monkeypatch.delenv(name)


def _tandem(*arguments: str) -> Result:
    return CliRunner().invoke(tandem, arguments, prog_name="tandem")


def _one_line(result: Result) -> str:
    """The error, which is one line after the usage, and no traceback."""
    assert result.exit_code in (1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert result.stderr.splitlines()[-1] == lines[0]
    return lines[0].removeprefix("Error: ")


def _given(settings: Settings) -> Settings:
    """Without what `serve` adds by itself on loopback."""
    assert settings.allowed_hosts == LOOPBACK
    return settings.model_copy(update={"allowed_hosts": (), "metrics_folder": None})


# Errors that the user can mend


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--set", "churn=onnx"], "--set: expected MODEL.RULE=VALUE, got 'churn=onnx'", id="rule"),
        pytest.param(["--set", "churn.color=red"], "per_model.churn.color: Extra inputs", id="unknown rule"),
        pytest.param(["--threads", "0"], "threads: Input should be greater than or equal to 1", id="threads"),
        pytest.param(["--trust", "*"], "trust: cannot trust '*'", id="trust"),
        pytest.param(
            ["--models", "nowhere"], "there is no folder 'nowhere': export a model into it first", id="models"
        ),
        pytest.param(["nowhere.joblib"], "there is no file 'nowhere.joblib'", id="file"),
        pytest.param(["--framework", "django"], "'django' is not one of 'fastapi', 'flask'", id="framework"),
        pytest.param(["--port", "0"], "0 is not in the range", id="port"),
    ],
)
def test_serve_says_in_one_line_what_is_wrong(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert told in _one_line(_tandem("serve", *arguments))


def test_bad_variable_is_told_by_the_name_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_POLL_S", "often")

    assert "poll_s: Input should be a valid number" in _one_line(_tandem("serve"))


def test_taken_port_is_told_before_anything_is_started(models: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = _tandem("serve", "--models", str(models), "--port", str(port))

    assert _one_line(result) == f"cannot listen on 127.0.0.1 port {port}: Address already in use"


def test_host_that_is_not_of_this_machine_is_told(models: Path) -> None:
    result = _tandem("serve", "--models", str(models), "--host", "192.0.2.1")

    assert _one_line(result).startswith("cannot listen on 192.0.2.1 port 8000: ")


def test_file_that_is_no_model_is_told(tmp_path: Path, binding: Binding) -> None:
    path = tmp_path / "churn.joblib"
    path.write_bytes(b"this is not a model")

    result = _tandem("serve", str(path), "--port", str(binding.port))

    assert "model file" in _one_line(result)


@fault("L03", sent="serve FILE that names code beyond the allow-list", expected="refused, with the names and options")
def test_untrusted_file_is_told_with_the_option_that_mends_it(tmp_path: Path, binding: Binding) -> None:
    path = tmp_path / "churn.joblib"
    joblib.dump(make_pipeline(FunctionTransformer(shlex.quote), LinearRegression()), path)

    result = _tandem("serve", str(path), "--port", str(binding.port))

    assert "If you trust it: --trust shlex.quote" in _one_line(result)


@fault("L03", sent="serve FILE that names code of two kinds", expected="refused, listing each and the options")
def test_every_untrusted_name_is_told(tmp_path: Path, binding: Binding) -> None:
    path = tmp_path / "churn.joblib"
    joblib.dump([FunctionTransformer(shlex.quote), FunctionTransformer(shlex.join)], path)

    result = _tandem("serve", str(path), "--port", str(binding.port))

    assert "shlex.join, shlex.quote" in _one_line(result)
    assert "If you trust it: --trust shlex.join --trust shlex.quote" in _one_line(result)


# A bare file is code that somebody wrote


@fault("L02", "M27", sent="serve URL", expected="refused, with the command that fetches it")
@pytest.mark.parametrize("url", ["https://example.org/m/churn.joblib", "s3://bucket/churn.joblib?x=$(id)"])
def test_url_is_not_fetched(url: str) -> None:
    message = _one_line(_tandem("serve", url))

    assert f"a model is not fetched from {url}" in message
    assert message.endswith(f"curl -fLO {shlex.quote(url)}")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_bare_file_is_served_on_loopback_only(model_file: Path, host: str) -> None:
    result = _tandem("serve", str(model_file), "--host", host)

    assert f"a bare file is served on loopback only, not on {host}" in _one_line(result)


@fault("L02", sent="serve FILE that others can write, or its folder", expected="refused with the command that mends it")
@pytest.mark.parametrize("place", ["file", "folder"])
def test_bare_file_that_everybody_may_change_is_refused_with_the_command_that_mends_it(
    model_file: Path, place: str, binding: Binding
) -> None:
    path = model_file if place == "file" else model_file.parent
    path.chmod(path.stat().st_mode | 0o002)

    message = _one_line(_tandem("serve", str(model_file), "--port", str(binding.port)))

    path.chmod(path.stat().st_mode & ~0o002)
    assert message.endswith(f"chmod o-w {shlex.quote(str(path))}")


@fault("L02", sent="serve FILE of another user", expected="refused")
def test_bare_file_of_another_user_is_refused(
    model_file: Path, binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(model_file, 12345, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 12345)

    assert "belongs to another user" in _one_line(_tandem("serve", str(model_file), "--port", str(binding.port)))


# What is started


@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        pytest.param([], "run_uvicorn", id="fastapi"),
        pytest.param(["--framework", "flask"], "run_gunicorn", id="flask"),
        pytest.param(["--framework", "flask", "--server", "granian"], "run_granian", id="flask under Granian"),
    ],
)
def test_serve_starts_the_server_that_was_chosen(
    models: Path, binding: Binding, monkeypatch: pytest.MonkeyPatch, arguments: list[str], server: str
) -> None:
    started: list[tuple[str, Settings, Binding]] = []
    for name in ("run_uvicorn", "run_granian", "run_gunicorn"):
        monkeypatch.setattr(
            cli, name, lambda settings, binding, *rest, name=name: started.append((name, settings, binding))
        )

    result = _tandem(
        "serve", "--models", str(models), "--port", str(binding.port), "--workers", "3", "--threads", "5",
        "--trust", "mine.A", "--trust", "mine.B", "--log-level", "error", *arguments,
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    ((name, settings, bound),) = started
    assert name == server
    assert bound == Binding("127.0.0.1", binding.port, 3)
    expected = Settings(models=models, threads=5, workers=3, trust=("mine.A", "mine.B"), log_level="error")
    assert _given(settings) == expected


def test_options_that_are_not_given_come_from_variables(
    models: Path, binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Settings] = []
    monkeypatch.setattr(cli, "run_uvicorn", lambda settings, binding: started.append(settings))
    monkeypatch.setenv("TANDEM_MODELS", str(models))
    monkeypatch.setenv("TANDEM_ALLOW_VERSION_MISMATCH", "true")
    monkeypatch.setenv("TANDEM_TRUST", "mine.A")

    result = _tandem("serve", "--port", str(binding.port))

    assert result.exit_code == 0, result.output
    assert [*map(_given, started)] == [Settings(models=models, allow_version_mismatch=True, trust=("mine.A",))]


@pytest.mark.parametrize("option", [(), ("--model-control",)])
def test_workers_that_may_be_told_to_load_models_tell_each_other_in_a_file(
    models: Path, binding: Binding, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    started: list[Settings] = []
    there: list[bool] = []

    def run(settings: Settings, binding: Binding) -> None:
        started.append(settings)
        there.append(settings.orders_file is not None and settings.orders_file.is_file())

    monkeypatch.setattr(cli, "run_uvicorn", run)

    result = _tandem("serve", "--models", str(models), "--port", str(binding.port), *option)

    assert result.exit_code == 0, result.output
    assert (started[0].model_control, there) == (bool(option), [bool(option)])
    assert started[0].orders_file is None or not started[0].orders_file.parent.exists()


@pytest.mark.parametrize(
    ("variables", "arguments", "wanted"),
    [
        pytest.param({}, [], ("0.0.0.0", 9090, 3), id="the platform's"),
        pytest.param({"TANDEM_WORKERS": "2"}, [], ("0.0.0.0", 9090, 2), id="a variable of ours comes first"),
        pytest.param(
            {}, ["--host", "127.0.0.1", "--port", "9191", "--workers", "4"], ("127.0.0.1", 9191, 4), id="options, too"
        ),
    ],
)
def test_the_platform_of_a_container_has_defaults_of_its_own(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    wanted: tuple[str, int, int],
) -> None:
    started: list[tuple[Settings, Binding]] = []
    monkeypatch.setattr(cli, "run_uvicorn", lambda settings, binding: started.append((settings, binding)))
    monkeypatch.setattr(cli, "check_startable", lambda *_, **__: None)
    platform = {"SAGEMAKER_BIND_TO_PORT": "9090", "SAGEMAKER_MODEL_SERVER_WORKERS": "3", "TANDEM_MODELS": str(models)}
    for name, value in (platform | variables).items():
        monkeypatch.setenv(name, value)

    result = _tandem("serve", *arguments)

    assert result.exit_code == 0, result.output
    ((settings, binding),) = started
    assert binding == Binding(*wanted)
    assert settings.workers == wanted[2]


def test_a_bare_file_is_served_to_the_platform_of_a_container(
    model_file: Path, binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Settings] = []
    monkeypatch.setattr(cli, "run_uvicorn", lambda settings, binding: started.append(settings))
    monkeypatch.setenv("AIP_HTTP_PORT", str(binding.port))
    monkeypatch.setenv("AIP_STORAGE_URI", str(model_file.parent))
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/1/deployedModels/2:predict")

    result = _tandem("serve")

    assert result.exit_code == 0, result.output
    assert started[0].model_file == model_file
    assert started[0].vertex_predict_route == "/v1/endpoints/1/deployedModels/2:predict"


def test_a_path_of_the_platform_that_is_none_is_refused_by_its_name(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/{health}")

    assert _one_line(_tandem("serve", "--models", str(models))).startswith("vertex_health_route: String should match")


# Inspection


def test_inspect_shows_the_engines_as_text_or_json(models: Path) -> None:
    text = _tandem("inspect", "iris", "--models", str(models))
    about = json.loads(_tandem("inspect", "iris", "2", "--models", str(models), "--json").output)

    assert text.output.startswith("iris ")
    assert "estimator" in text.output
    assert about["rules"] == {"fidelity": "close", "pickle": "lazy"}
    assert {"estimator"} <= {row["name"] for row in about["engines"]}


def test_inspect_says_in_one_line_what_is_wrong(models: Path) -> None:
    assert "there is no model 'wine'" in _one_line(_tandem("inspect", "wine", "--models", str(models)))


@pytest.mark.parametrize("given", ["engine=onnx", "churn.engine", ".engine=onnx", "churn.engine="])
def test_rule_of_another_form_is_refused(given: str) -> None:
    with pytest.raises(click.UsageError, match=r"expected MODEL\.RULE=VALUE"):
        model_rules([given])


def test_rules_of_a_model_are_collected() -> None:
    given = ["a.b.engine=onnx", "a.b.fidelity=exact", "c.pickle=never"]

    assert model_rules(given) == {"a.b": {"engine": "onnx", "fidelity": "exact"}, "c": {"pickle": "never"}}


# Promotion


def test_promote_tells_what_the_label_pointed_at_before(models: Path) -> None:
    first = _tandem("promote", "iris", "2", "--models", str(models))
    back = _tandem("promote", "iris", "1", "--models", str(models))

    assert (first.output, back.output) == ("iris: stable is version 2\n", "iris: stable is version 1 (was 2)\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["iris", "9"], "model 'iris' has no version 9; it has 1, 2", id="version"),
        pytest.param(["wine", "1"], "model 'wine' has no version 1; it has none", id="model"),
        pytest.param(["../iris", "1"], "model name '../iris'", id="name"),
        pytest.param(["iris", "1", "--label", "a b"], "label 'a b'", id="label"),
        pytest.param(["iris", "one"], "'one' is not a valid integer", id="no number"),
    ],
)
def test_promote_says_in_one_line_what_is_wrong(models: Path, arguments: list[str], told: str) -> None:
    assert told in _one_line(_tandem("promote", *arguments, "--models", str(models)))


def test_version_is_told() -> None:
    assert _tandem("--version").output.startswith("tandem, version ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--server", "granian"], "fastapi is served by uvicorn, not by granian", id="not under FastAPI"),
        pytest.param(
            ["--framework", "flask", "--server", "uvicorn"],
            "flask is served by gunicorn or granian",
            id="not under Flask",
        ),
    ],
)
def test_a_server_that_cannot_carry_the_framework_is_refused(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(tandem, ["serve", "--models", str(tmp_path), *arguments])

    assert result.exit_code == 1
    assert told in result.output


# Keys of callers


def test_key_is_printed_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    made = _tandem("api-keys", "create", "shop", "--model", "churn", "--limit", "5/second", "--keys", str(path))

    key = made.stdout.strip()
    assert (made.exit_code, key[:7]) == (0, "tandem_")
    assert caller_with(key, parse_keys(path.read_bytes()), 0.0) == Caller(
        "shop", frozenset({Scope.PREDICT}), frozenset({"churn"}), Rate(5, 1)
    )
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_are_listed_and_revoked(tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keys.json"))
    _tandem("api-keys", "create", "shop", "--model", "churn", "--limit", "5/second", *keys)
    _tandem("api-keys", "create", "operator", "--scope", "metrics", "--scope", "admin", *keys)

    before, revoked, after = (
        _tandem("api-keys", *arguments, *keys) for arguments in (["list"], ["revoke", "shop"], ["list"])
    )

    assert before.stdout.splitlines() == ["shop  predict  models churn  limit 5/second", "operator  metrics,admin"]
    assert (revoked.exit_code, after.stdout.splitlines()) == (0, ["operator  metrics,admin"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["create", "a b"], "expected a name", id="name"),
        pytest.param(["create", "shop", "--limit", "much"], "expected a rate such as 100/minute", id="limit"),
        pytest.param(["create", "shop", "--expires", "soon"], "expires as an ISO 8601 date", id="expires"),
        pytest.param(["create", "shop", "--model", "../x"], "models as a list of names", id="model"),
        pytest.param(["revoke", "shop"], "there is no key 'shop'", id="unknown"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = _tandem("api-keys", *arguments, "--keys", str(tmp_path / "keys.json"))

    assert told in _one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_service_beyond_loopback_without_keys_does_not_start(models: Path, binding: Binding) -> None:
    result = _tandem("serve", "--models", str(models), "--host", "0.0.0.0", "--port", str(binding.port))

    assert "callers would not be asked who they are" in _one_line(result)
