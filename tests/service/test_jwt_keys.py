"""Tokens signed with private keys: which hold, which do not, and that no key serves another algorithm than its own."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from metering.auth import USAGE_READ, Caller
from metering.clock import HandClock
from metering.errors import Unauthenticated
from metering.jwks import Jwks
from metering.jwts import TRIES_MAX, JwtVerifier, KeySource
from metering.public_keys import KEYS_MAX, KeyFile, PublicKey, UnusableKeysError, keys_of_jwks, keys_of_pem
from tests.service.running import SECRET
from tests.support.certificate import self_signed
from tests.support.issuer import EC, ED, RSA, Signer, document

NOW_MS: Final = 1_700_000_000_000
NOW_S: Final = NOW_MS // 1000
CLAIMS: Final[dict[str, Any]] = {"sub": "svc", "org_id": "org-1", "scopes": [USAGE_READ], "exp": NOW_S + 600}
CALLER: Final = Caller("svc", "org-1", frozenset({USAGE_READ}))
SIGNERS: Final = (RSA, EC, ED)
STRANGER: Final = Signer("ES256", "ec-1")
"""Has a key of its own and the name of another's."""


def key_file(folder: Path, *signers: Signer) -> KeyFile:
    path = folder / "keys.pem"
    path.write_text("".join(signer.pem() for signer in signers))
    return KeyFile(path)


async def published(*entries: dict[str, Any]) -> Jwks:
    """A JWKS that holds these keys and was fetched once."""

    async def fetch() -> bytes:
        return document(*entries)

    jwks = Jwks(fetch, HandClock(NOW_MS))
    await jwks.refresh()
    return jwks


async def verifier(*entries: dict[str, Any], secret: str | None = None) -> JwtVerifier:
    return JwtVerifier(secret, HandClock(NOW_MS), sources=[await published(*entries)])


async def caller(verifier: JwtVerifier, token: str) -> Caller | None:
    verified = await verifier.verify(token)
    return None if verified is None else verified.caller


async def refusal(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as told:
        await verifier.verify(token)
    return told.value.detail


def by_hand(header: dict[str, Any], key: bytes | None = None, claims: dict[str, Any] = CLAIMS) -> str:
    """A token put together by hand, its signature an HMAC with `key` or nothing."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = b"" if key is None else hmac.digest(key, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


# ── what holds ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.alg)
async def test_a_token_signed_with_a_key_of_the_document_holds(signer: Signer) -> None:
    known = await verifier(*(each.jwk() for each in SIGNERS))
    for sent in (signer, signer.named(None)):
        assert await caller(known, sent.token(CLAIMS)) == CALLER


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.alg)
async def test_a_token_signed_with_a_key_of_the_file_holds_whatever_name_it_gives(
    tmp_path: Path, signer: Signer
) -> None:
    known = JwtVerifier(None, HandClock(NOW_MS), sources=[key_file(tmp_path, *SIGNERS)])
    for name in (None, "anything", "../../etc/passwd"):
        assert await caller(known, signer.named(name).token(CLAIMS)) == CALLER


async def test_two_keys_of_one_kind_both_hold_while_one_takes_over_from_the_other(tmp_path: Path) -> None:
    old, new = Signer("ES256"), Signer("ES256")
    known = JwtVerifier(None, HandClock(NOW_MS), sources=[key_file(tmp_path, old, new)])
    assert await caller(known, old.token(CLAIMS)) == await caller(known, new.token(CLAIMS)) == CALLER


async def test_file_and_document_serve_side_by_side(tmp_path: Path) -> None:
    known = JwtVerifier(None, HandClock(NOW_MS), sources=[key_file(tmp_path, EC), await published(RSA.jwk())])
    assert await caller(known, EC.token(CLAIMS)) == await caller(known, RSA.token(CLAIMS)) == CALLER


async def test_keys_that_share_a_name_are_each_tried() -> None:
    twins = Signer("ES256", "twin"), Signer("ES256", "twin"), RSA.named("twin")
    known = await verifier(*(twin.jwk() for twin in twins))
    assert [await caller(known, twin.token(CLAIMS)) for twin in twins] == [CALLER] * 3


async def test_a_token_without_a_name_is_tried_against_some_keys_and_no_more() -> None:
    signers = [Signer("EdDSA", f"ed-{number}") for number in range(TRIES_MAX + 1)]
    known = await verifier(*(signer.jwk() for signer in signers))
    assert await caller(known, signers[TRIES_MAX - 1].named(None).token(CLAIMS)) == CALLER
    assert "no key" in await refusal(known, signers[TRIES_MAX].named(None).token(CLAIMS))
    assert await caller(known, signers[TRIES_MAX].token(CLAIMS)) == CALLER


async def test_beside_keys_the_shared_secret_holds_only_where_it_was_set() -> None:
    token = by_hand({"alg": "HS256"}, SECRET.encode())
    assert await caller(await verifier(EC.jwk(), secret=SECRET), token) == CALLER
    assert "algorithm" in await refusal(await verifier(EC.jwk()), token)


# ── what does not ────────────────────────────────────────────────────────────────────────────────────────

PUBLIC_BYTES: Final = {
    "PEM": RSA.pem().encode(),
    "PEM without its last line end": RSA.pem().strip().encode(),
    "DER": RSA.private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "JWK": json.dumps(RSA.jwk()).encode(),
    "modulus": RSA.jwk()["n"].encode(),
    "nothing": b"",
}


@pytest.mark.parametrize("secret", [None, SECRET], ids=["HS256 off", "HS256 on"])
@pytest.mark.parametrize("key", PUBLIC_BYTES.values(), ids=PUBLIC_BYTES)
async def test_a_public_key_is_no_shared_secret(tmp_path: Path, key: bytes, secret: str | None) -> None:
    sources: list[KeySource] = [key_file(tmp_path, RSA), await published(RSA.jwk())]
    known = JwtVerifier(secret, HandClock(NOW_MS), sources=sources)
    for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "rsa-1"}, {"alg": "HS256", "typ": "JWT", "kid": "x"}):
        await refusal(known, by_hand(header, key))


def relabelled(signer: Signer, alg: str) -> str:
    """A token whose header says another algorithm than the one it was signed with."""
    head, claims, signature = signer.token(CLAIMS).split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "==")) | {"alg": alg}
    return f"{base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b'=').decode()}.{claims}.{signature}"


REFUSED: Final = {
    "none": by_hand({"alg": "none", "kid": "rsa-1"}),
    "None": by_hand({"alg": "None"}),
    "no alg": by_hand({"typ": "JWT", "kid": "rsa-1"}),
    "alg a list": by_hand({"alg": ["RS256"]}),
    "alg an object": by_hand({"alg": {"RS256": 1}}),
    "alg a number": by_hand({"alg": 256}),
    "RS512 with the right key": RSA.token(CLAIMS, alg="RS512"),
    "PS256 with the right key": RSA.token(CLAIMS, alg="PS256"),
    "ES384": Signer("ES384", "ec-1").token(CLAIMS),
    "ES256K": Signer("ES256K", "ec-1").token(CLAIMS),
    "RS256 said to be ES256": relabelled(RSA, "ES256"),
    "ES256 said to be RS256": relabelled(EC, "RS256"),
    "EdDSA said to be ES256": relabelled(ED, "ES256"),
    "another's key under a known name": STRANGER.token(CLAIMS),
    "another's key without a name": STRANGER.named(None).token(CLAIMS),
    "the name of another kind of key": EC.named("rsa-1").token(CLAIMS),
    "a name nobody has": EC.named("ec-2").token(CLAIMS),
    "an empty name": EC.named("").token(CLAIMS),
    "a name that is a path": STRANGER.named("../../../../dev/null").token(CLAIMS),
    "a name that is a query": STRANGER.named("ec-1' OR '1'='1").token(CLAIMS),
    "a name that is a URL": STRANGER.named("https://evil.example/jwks.json").token(CLAIMS),
    "a long name": STRANGER.named("ec-1" * 1000).token(CLAIMS),
    "a number for a name": by_hand({"alg": "ES256", "kid": 1}),
    "a list for a name": by_hand({"alg": "ES256", "kid": ["ec-1"]}),
    "a key of its own": STRANGER.named(None).token(CLAIMS, jwk=STRANGER.jwk()),
    "an address of keys": STRANGER.token(CLAIMS, jku="https://evil.example/jwks.json", x5u="https://evil.example/x"),
    "certificates of its own": STRANGER.token(CLAIMS, x5c=["MIIB"]),
    "no signature": EC.token(CLAIMS).rpartition(".")[0] + ".",
    "an empty signature of zeros": EC.token(CLAIMS).rpartition(".")[0] + "." + "A" * 86,
    "crit": by_hand({"alg": "ES256", "kid": "ec-1", "crit": ["exp"]}),
    "b64": by_hand({"alg": "ES256", "kid": "ec-1", "b64": False, "crit": ["b64"]}),
    "another type": EC.token(CLAIMS, typ="dpop+jwt"),
    "no exp": EC.token({name: value for name, value in CLAIMS.items() if name != "exp"}),
    "expired": EC.token(CLAIMS | {"exp": NOW_S - 60}),
    "not yet": EC.token(CLAIMS | {"nbf": NOW_S + 60}),
    "jti a number": EC.token(CLAIMS | {"jti": 7}),
    "claims a list": "e30.W10.e30",
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
async def test_a_token_that_does_not_hold_is_refused_and_not_repeated(token: str) -> None:
    known = await verifier(*(each.jwk() for each in SIGNERS), secret=SECRET)
    reason = await refusal(known, token)
    assert token[:20] not in reason
    assert "evil" not in reason


async def test_audience_and_issuer_are_asked_of_these_tokens_too() -> None:
    known = JwtVerifier(
        None, HandClock(NOW_MS), sources=[await published(EC.jwk())], audience="metering", issuer="https://me.example"
    )
    assert await caller(known, EC.token(CLAIMS | {"aud": "metering", "iss": "https://me.example"})) == CALLER
    for claims in ({"aud": "metering"}, {"iss": "https://me.example"}, {"aud": "x", "iss": "https://me.example"}):
        await refusal(known, EC.token(CLAIMS | claims))


async def test_a_withdrawn_id_is_refused_whoever_signed() -> None:
    known = JwtVerifier(
        SECRET, HandClock(NOW_MS), sources=[await published(EC.jwk())], denied=lambda jti: jti == "gone"
    )
    assert await caller(known, EC.token(CLAIMS | {"jti": "here"})) == CALLER
    assert "withdrawn" in await refusal(known, EC.token(CLAIMS | {"jti": "gone"}))
    assert "withdrawn" in await refusal(known, by_hand({"alg": "HS256"}, SECRET.encode(), CLAIMS | {"jti": "gone"}))


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────


def private_pem(signer: Signer) -> str:
    text: bytes = signer.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text.decode()


def small_rsa() -> str:
    return Signer("RS256", private=rsa.generate_private_key(public_exponent=65537, key_size=1024)).pem()  # noqa: S505 - to be refused


BAD_FILES: Final = {
    "empty": ("", "no whole PEM blocks"),
    "no PEM": ("ssh-rsa AAAA", "no whole PEM blocks"),
    "cut": (EC.pem()[:-30], "no whole PEM blocks"),
    "one good, one cut": (EC.pem() + EC.pem()[:-30], "1 whole PEM blocks"),
    "private": (EC.pem() + private_pem(EC), "block 2 is a private key"),
    "certificate": (self_signed(RSA.private).public_bytes(serialization.Encoding.PEM).decode(), "no public key but a"),
    "RSA of 1024 bits": (small_rsa(), "block 1 is no key that is taken"),
    "P-384": (Signer("ES384").pem(), "block 1 is no key that is taken"),
    "secp256k1": (Signer("ES256K").pem(), "block 1 is no key that is taken"),
    "junk": ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "block 1 is no key that is taken"),
    "too many": (EC.pem() * (KEYS_MAX + 1), f"it holds {KEYS_MAX + 1}"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_with_anything_but_public_keys_is_refused_with_a_cure(text: str, reason: str) -> None:
    with pytest.raises(UnusableKeysError, match=reason) as told:
        keys_of_pem(text)
    assert told.value.cure
    assert private_pem(EC).splitlines()[1] not in str(told.value) + told.value.cure


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused_with_a_cure(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableKeysError, match="cannot be read") as told:
        KeyFile(path)
    assert "JWT_PUBLIC_KEY_FILE" in told.value.cure


def test_words_between_keys_and_foreign_line_ends_do_no_harm() -> None:
    text = f"# the old key\n{EC.pem()}\nthe new one:\n{RSA.pem()}".replace("\n", "\r\n")
    assert [key.algorithm for key in keys_of_pem(text)] == ["ES256", "RS256"]


# ── the document ─────────────────────────────────────────────────────────────────────────────────────────

PASSED_OVER: Final[dict[str, Any]] = {
    "a shared key": {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "alg": "HS256"},
    "an RSA key with a shared one inside": RSA.jwk(k="c2VjcmV0"),
    "a private EC key": EC.jwk(d="AAAA"),
    "a private RSA key": RSA.jwk(d="AAAA", p="AAAA", q="AAAA"),
    "for encryption": RSA.jwk(use="enc"),
    "for signing only": EC.jwk(key_ops=["sign"]),
    "operations that are no list": EC.jwk(key_ops="verify"),
    "for another algorithm": RSA.jwk(alg="RS512"),
    "for HS256": RSA.jwk(alg="HS256"),
    "for no algorithm": RSA.jwk(alg="none"),
    "another curve": Signer("ES384", "x").jwk(),
    "the wrong curve": EC.jwk(crv="P-384"),
    "a curve for RSA": RSA.jwk(crv="P-256"),
    "no type": {"kid": "x"},
    "a type that is a list": RSA.jwk(kty=["RSA"]),
    "a name that is a number": RSA.jwk(kid=7),
    "a name too long": RSA.jwk(kid="k" * 256),
    "a modulus that is a number": RSA.jwk(n=7),
    "a modulus that is no base64": RSA.jwk(n="é"),
    "an even modulus of one byte": RSA.jwk(n="Ag"),
    "an exponent of one": RSA.jwk(e="AQ"),
    "a point off the curve": EC.jwk(x="AAAA"),
    "a short Ed25519 key": ED.jwk(x="AAAA"),
    "Ed448": {"kty": "OKP", "crv": "Ed448", "x": "A" * 76},
    "no object": "key",
    "null": None,
}


@pytest.mark.parametrize("entry", PASSED_OVER.values(), ids=PASSED_OVER)
def test_a_key_that_is_not_for_checking_signatures_here_is_passed_over(entry: Any) -> None:
    keys, others = keys_of_jwks(json.dumps({"keys": [entry, EC.jwk()]}).encode())
    assert ([key.algorithm for key in keys], others) == (["ES256"], 1)


@pytest.mark.parametrize(
    "entry", [EC.jwk(use="sig", alg="ES256", key_ops=["verify"]), EC.jwk(x5t="a", more=1), EC.named(None).jwk()]
)
def test_what_a_key_may_say_besides_does_no_harm(entry: dict[str, Any]) -> None:
    [key], others = keys_of_jwks(document(entry))
    assert (key, others) == (PublicKey("ES256", key.key, entry.get("kid")), 0)


BAD_DOCUMENTS: Final = {
    "nothing": b"",
    "HTML": b"<html>",
    "a list": b"[]",
    "a number": b"7",
    "no keys": b"{}",
    "keys that are an object": b'{"keys": {}}',
    "too many keys": document(*[EC.jwk()] * (KEYS_MAX + 1)),
    "nested": b'{"keys":' + b"[" * 100_000,
    "not UTF-8": b"\xff\xfe\xfa",
}


@pytest.mark.parametrize("answer", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_document_that_is_no_jwks_is_refused(answer: bytes) -> None:
    with pytest.raises(UnusableKeysError):
        keys_of_jwks(answer)


def test_certificates_of_these_tests_are_certificates() -> None:
    certificate = self_signed(RSA.private)
    assert isinstance(certificate, x509.Certificate)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
