from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.settings import Settings
from tests.faults.cases import fault


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TANDEM_")]:
        monkeypatch.delenv(name)


def test_defaults_suit_a_laptop_and_trust_nobody() -> None:
    settings = Settings()

    assert settings.models == Path("models")
    assert settings.thread_budget == len(os.sched_getaffinity(0))
    assert settings.trust == ()
    assert not settings.allow_version_mismatch


@fault("B21", sent="sizes of batch and queue of 0, below, above what is allowed", expected="refused under their name")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_versions", 0), ("keep_versions", 1001), ("keep_versions", "two"),
        ("poll_s", 0), ("poll_s", float("nan")), ("poll_s", 3601),
        ("threads", 0), ("threads", 1.5), ("threads", 1025),
        ("max_body_bytes", 1023), ("max_body_bytes", 2**31 + 1),
        ("timeout_s", 0), ("timeout_s", float("inf")), ("timeout_s", float("nan")),
        ("workers", 0), ("batch_rows", 0), ("queue_rows", 0), ("queue_bytes", 1023), ("max_waiting", 0),
        ("batch_rows", 1_000_001), ("queue_rows", 10**9 + 1), ("queue_s", 0), ("queue_s", -1.0), ("queue_s", 3601),
        ("queue_s", float("nan")), ("grpc_idle_s", 0), ("grpc_age_s", float("inf")),
        ("upstream", "file:///etc"), ("upstream", "http://user:x@host/"), ("upstream_model", "a b"),
        ("upstream_first_s", 0), ("upstream_parameters", "url"), ("upstream_max_n", 0), ("upstream_max_tokens", 0),
        ("fidelity", "roughly"), ("pickle", "sometimes"), ("per_model", {"churn": 3}),
        ("device", "tpu"), ("log_format", "xml"), ("log_level", "loud"),
        ("allow_version_mismatch", "perhaps"), ("models", 3), ("trust", 3),
        ("trust", "*"), ("trust", "mine.*.Step"), ("trust", ["mine*"]), ("no_such_setting", 1),
    ],
)  # fmt: skip
def test_bad_value_is_refused_under_the_name_of_its_setting(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})

    assert [error["loc"][0] for error in caught.value.errors()] == [name]


@pytest.mark.parametrize(
    ("given_trust", "trust"),
    [
        pytest.param("mine.Step", ("mine.Step",), id="one"),
        pytest.param("mine.Step,theirs.*", ("mine.Step", "theirs.*"), id="several"),
        pytest.param(" mine.Step , ,", ("mine.Step",), id="spaces and empty"),
        pytest.param("", (), id="empty"),
    ],
)
def test_trust_is_a_list_with_commas(monkeypatch: pytest.MonkeyPatch, given_trust: str, trust: tuple[str, ...]) -> None:
    monkeypatch.setenv("TANDEM_TRUST", given_trust)

    assert Settings().trust == trust


def test_variables_are_read_and_arguments_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_KEEP_VERSIONS", "5")
    monkeypatch.setenv("TANDEM_THREADS", "7")

    settings = Settings(threads=3)

    assert (settings.keep_versions, settings.threads) == (5, 3)


def test_bad_variable_is_refused_under_the_name_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_POLL_S", "often")

    with pytest.raises(ValidationError) as caught:
        Settings()

    assert caught.value.errors()[0]["loc"] == ("poll_s",)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().threads = 2  # type: ignore[misc]


_NAMES = st.from_regex(r"[a-z]{1,5}(\.[A-Z][a-z]{0,5}|\.\*)", fullmatch=True)


@given(
    given_values=st.fixed_dictionaries(
        {},
        optional={
            "models": st.sampled_from([Path("models"), Path("/with space/größe"), Path("a,b")]),
            "model_file": st.sampled_from([Path("churn.joblib")]),
            "default_model": st.sampled_from(["iris", "1e3", "true"]),
            "keep_versions": st.integers(1, 1000),
            "poll_s": st.floats(0.05, 3600),
            "trust": st.lists(_NAMES).map(tuple),
            "allow_version_mismatch": st.booleans(),
            "device": st.sampled_from(["auto", "cpu"]),
            "threads": st.integers(1, 1024),
            "max_body_bytes": st.integers(1024, 2**31),
            "timeout_s": st.floats(0, 3600, exclude_min=True),
            "log_format": st.sampled_from(["json", "console"]),
            "log_level": st.sampled_from(["debug", "info", "warning", "error"]),
        },
    )
)
def test_another_process_reads_the_same_settings_from_the_environment(given_values: dict[str, Any]) -> None:
    settings = Settings(**given_values)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.as_environment().items():
            patch.setenv(name, value)
        assert Settings() == settings


def test_key_of_the_upstream_goes_to_other_processes_and_is_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(upstream="http://127.0.0.1/v1", upstream_key="sk-canary")  # type: ignore[arg-type]

    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    read = Settings()

    assert read == settings
    assert read.generation is not None and read.generation.upstream.key == "sk-canary"
    for shown in (repr(read), str(read), repr(read.generation), read.model_dump_json()):
        assert "canary" not in shown


def test_nothing_is_generated_without_an_upstream() -> None:
    assert Settings(upstream_model="m").generation is None


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
