"""The settings of the language model that the service fronts. Fields of `Settings`, like all others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from service.generation.address import parse_address
from service.generation.rules import GenerationRules, RequestRules, UpstreamRules, check_parameters


class UpstreamSettings(BaseSettings):
    """Without `upstream` there are no routes that make text, and the others mean nothing."""

    upstream: str | None = Field(
        None,
        description="server of a language model that speaks OpenAI's protocol, as http://127.0.0.1:11434/v1: with it "
        "there are /v1/generate, /v1/completions and /v1/chat/completions",
    )
    upstream_model: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$",
        description="the model that is asked there; without it callers name one",
    )
    upstream_key: SecretStr | None = Field(None, description="what the upstream wants to be shown")
    upstream_key_file: Path | None = Field(None, description="a file that holds that, instead")
    upstream_parameters: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="parameters that are passed on as they are, beyond those that are checked: top_k, tools"
    )
    upstream_connect_s: float = Field(5.0, gt=0, le=600, description="a connection to the upstream takes no longer")
    upstream_first_s: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="an answer whose first byte is not there by then is 504; too small refuses long prompts",
    )
    upstream_gap_s: float = Field(
        30.0, gt=0, le=3600, description="an answer that does not go on for so long is given up"
    )
    upstream_total_s: float = Field(600.0, gt=0, le=86_400, description="an answer that takes longer is given up")
    upstream_connections: int = Field(
        64, ge=1, le=10_000, description="connections of each process to the upstream; beyond it 503"
    )
    upstream_max_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, le=2**31, description="an answer of the upstream that is larger is given up"
    )
    upstream_max_tokens: int = Field(4096, ge=1, le=10**7, description="tokens that a caller may ask for")
    upstream_max_prompt_bytes: int = Field(
        256 * 1024, ge=1, le=2**31, description="a prompt, or messages, that are larger are refused with 413"
    )
    upstream_max_messages: int = Field(256, ge=1, le=10**6, description="more messages are refused with 413")
    upstream_max_n: int = Field(1, ge=1, le=128, description="texts that a caller may ask for at once")

    @field_validator("upstream")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("upstream_parameters")
    @classmethod
    def _are_parameters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_parameters(value)
        return value

    @property
    def generation(self) -> GenerationRules | None:
        """How text is made, if it is."""
        if self.upstream is None:
            return None
        return GenerationRules(
            UpstreamRules(
                address=parse_address(self.upstream),
                key=self.upstream_key.get_secret_value() if self.upstream_key is not None else None,
                key_file=self.upstream_key_file,
                connect_s=self.upstream_connect_s,
                first_s=self.upstream_first_s,
                gap_s=self.upstream_gap_s,
                total_s=self.upstream_total_s,
                connections=self.upstream_connections,
                max_bytes=self.upstream_max_bytes,
            ),
            RequestRules(
                model=self.upstream_model,
                max_tokens=self.upstream_max_tokens,
                max_prompt_bytes=self.upstream_max_prompt_bytes,
                max_messages=self.upstream_max_messages,
                max_n=self.upstream_max_n,
                parameters=frozenset(self.upstream_parameters),
            ),
        )
