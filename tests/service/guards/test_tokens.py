from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from service.core.callers import Caller, Scope
from service.guards.reread import Reread
from service.guards.tokens import JwksInvalid, Tokens, parse_jwks
from tests.faults.cases import fault

jwt = pytest.importorskip("jwt", reason="tokens are an extra")

RSA = rsa.generate_private_key(65537, 2048)
ES = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    for algorithm in (jwt.algorithms.RSAAlgorithm, jwt.algorithms.ECAlgorithm, jwt.algorithms.OKPAlgorithm):
        try:
            return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}
        except (AttributeError, TypeError, jwt.InvalidKeyError):
            continue
    raise AssertionError(key)


SET = json.dumps({"keys": [jwk(RSA, "rsa"), jwk(ES, "es"), jwk(ED, "ed")]}).encode()


def tokens(tmp_path: Path, content: bytes = SET, **about: Any) -> Tokens:
    path = tmp_path / "jwks.json"
    path.write_bytes(content)
    return Tokens(Reread(path, parse_jwks, now=0.0), about.get("issuer"), about.get("audience", "tandem"))


def claims(**changes: Any) -> dict[str, Any]:
    given = {"sub": "shop", "scope": "predict openid", "aud": "tandem", "exp": time.time() + 60, **changes}
    return {name: value for name, value in given.items() if value is not ...}


def asked(of: Tokens, token: str) -> Caller | None:
    return of.caller_with(token, 0.0, time.time())


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "rsa", "RS256"), (ES, "es", "ES256"), (ED, "ed", "EdDSA")])
def test_token_that_a_known_key_signed_stands_for_its_subject(
    key: Any, kid: str, algorithm: str, tmp_path: Path
) -> None:
    token = jwt.encode(claims(), key, algorithm, headers={"kid": kid})

    assert asked(tokens(tmp_path), token) == Caller("jwt:shop", frozenset({Scope.PREDICT}))


def test_key_that_is_alone_needs_no_id(tmp_path: Path) -> None:
    content = json.dumps({"keys": [jwk(ED, "ed")]}).encode()

    assert asked(tokens(tmp_path, content), jwt.encode(claims(), ED, "EdDSA")) is not None


def _pem() -> bytes:
    return RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _hs_with_public_key() -> str:
    """PyJWT refuses to make one, so it is made by hand."""
    import base64
    import hmac

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(claims())}"
    signature = hmac.digest(_pem(), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


WRONG = {
    "none": lambda: jwt.encode(claims(), None, "none", headers={"kid": "rsa"}),
    "HS256 with the public key": _hs_with_public_key,
    "another family": lambda: jwt.encode(claims(), ES, "ES256", headers={"kid": "rsa"}),
    "another algorithm of the family": lambda: jwt.encode(claims(), RSA, "RS512", headers={"kid": "rsa"}),
    "a stranger's key": lambda: jwt.encode(claims(), STRANGER, "EdDSA", headers={"kid": "ed"}),
    "unknown key id": lambda: jwt.encode(claims(), ED, "EdDSA", headers={"kid": "other"}),
    "no key id": lambda: jwt.encode(claims(), ED, "EdDSA"),
    "expired": lambda: jwt.encode(claims(exp=time.time() - 1), ED, "EdDSA", headers={"kid": "ed"}),
    "never expires": lambda: jwt.encode(claims(exp=...), ED, "EdDSA", headers={"kid": "ed"}),
    "expires at infinity": lambda: jwt.encode(claims(exp=1e400), ED, "EdDSA", headers={"kid": "ed"}),
    "not yet": lambda: jwt.encode(claims(nbf=time.time() + 60), ED, "EdDSA", headers={"kid": "ed"}),
    "wrong audience": lambda: jwt.encode(claims(aud="other"), ED, "EdDSA", headers={"kid": "ed"}),
    "no audience": lambda: jwt.encode(claims(aud=...), ED, "EdDSA", headers={"kid": "ed"}),
    "unknown crit": lambda: jwt.encode(claims(), ED, "EdDSA", headers={"kid": "ed", "crit": ["x"], "x": 1}),
    "crit of a known name": lambda: jwt.encode(claims(), ED, "EdDSA", headers={"kid": "ed", "crit": ["exp"], "exp": 1}),
    "cut": lambda: jwt.encode(claims(), ED, "EdDSA", headers={"kid": "ed"})[:-4],
    "dots": lambda: "..",
    "nonsense": lambda: "a.b.c",
}


@fault("A20", sent="none, HS256 with the public key, expired, wrong audience, unknown crit", expected="not known: 401")
@pytest.mark.parametrize("wrong", WRONG)
def test_token_that_should_not_be_believed_is_not(wrong: str, tmp_path: Path) -> None:
    assert asked(tokens(tmp_path), WRONG[wrong]()) is None


def test_audience_of_somebody_else_is_refused_where_none_is_set(tmp_path: Path) -> None:
    of = tokens(tmp_path, audience=None)

    assert asked(of, jwt.encode(claims(), ED, "EdDSA", headers={"kid": "ed"})) is None
    assert asked(of, jwt.encode(claims(aud=...), ED, "EdDSA", headers={"kid": "ed"})) is not None


@pytest.mark.parametrize(
    ("issuer", "known"), [("https://issuer.example", True), ("https://other.example", False), (..., False)]
)
def test_issuer_must_be_the_one_that_is_set(issuer: Any, known: bool, tmp_path: Path) -> None:
    of = tokens(tmp_path, issuer="https://issuer.example")

    token = jwt.encode(claims(iss=issuer), ED, "EdDSA", headers={"kid": "ed"})

    assert (asked(of, token) is not None) is known


def test_remembered_token_expires_too(tmp_path: Path) -> None:
    of = tokens(tmp_path)
    token = jwt.encode(claims(exp=int(time.time()) + 60), ED, "EdDSA", headers={"kid": "ed"})
    now = time.time()

    assert of.caller_with(token, 0.0, now) is not None
    assert of.caller_with(token, 0.0, now + 61) is None


def test_remembered_token_goes_with_its_key(tmp_path: Path) -> None:
    of = tokens(tmp_path)
    token = jwt.encode(claims(), ED, "EdDSA", headers={"kid": "ed"})
    assert of.caller_with(token, 0.0, time.time()) is not None

    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk(RSA, "rsa")]}))

    assert of.caller_with(token, 5.0, time.time()) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "expected a JSON Web Key Set", id="empty"),
        pytest.param(b"[]", "expected a JSON Web Key Set", id="a list"),
        pytest.param(b'{"keys": []}', "there is no key", id="no key"),
        pytest.param(b'{"keys": [5]}', "expected a JSON Web Key Set", id="a number"),
        pytest.param(b'{"keys": [{"kty": "RSA"}]}', "expected a JSON Web Key Set", id="half a key"),
        pytest.param(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "public keys only", id="a secret"),
        pytest.param(
            json.dumps({"keys": [jwt.algorithms.OKPAlgorithm.to_jwk(ED, as_dict=True)]}).encode(),
            "public keys only",
            id="a private key",
        ),
        pytest.param(json.dumps({"keys": [jwk(ED, "a"), jwk(ES, "a")]}).encode(), "comes twice", id="an id twice"),
    ],
)
def test_what_is_no_set_of_public_keys_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(JwksInvalid, match=says):
        parse_jwks(content)
