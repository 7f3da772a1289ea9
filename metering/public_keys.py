"""Public keys that tokens are checked with: out of a PEM file, or out of a JWKS document (RFC 7517).

Each key is used with one algorithm, that of its type, whatever a token says: RSA with RS256, P-256 with ES256, Ed25519
with EdDSA. Private and shared keys are refused: whoever could read them here could make tokens.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""What a public key may have signed."""

RSA_BITS: Final = range(2048, 8192 + 1)
"""NIST SP 800-131A asks for the first; the last still checks a signature in half a millisecond."""

KEYS_MAX: Final = 64
"""Keys of one file or document; issuers have two or three."""

_KID_CHARS_MAX: Final = 255

_MEMBERS: Final = {
    ("RSA", ""): ("RS256", ("n", "e")),
    ("EC", "P-256"): ("ES256", ("x", "y")),
    ("OKP", "Ed25519"): ("EdDSA", ("x",)),
}
"""Key types and curves taken from a JWKS document: their algorithm, and the members that make the key (RFC 7518 section
6, RFC 8037)."""

_NOT_PUBLIC: Final = ("d", "k", "p", "q", "dp", "dq", "qi", "oth")
"""Members of private and shared keys."""

_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----\n.*?-----END \1-----", re.DOTALL)


class UnusableKeysError(ValueError):
    """Keys that cannot be used. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, the one algorithm it is used with, and its name in tokens (None: it has none)."""

    algorithm: str
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    kid: str | None = None


def fitting(keys: Iterable[PublicKey], algorithm: str, kid: str | None) -> list[PublicKey]:
    """The keys for a token with `algorithm` and `kid`. A key or a token without a name fits every name."""
    named = (key for key in keys if kid is None or key.kid is None or key.kid == kid)
    return [key for key in named if key.algorithm == algorithm]


class KeyFile:
    """The keys of a PEM file, read once. A `metering.jwts.KeySource`."""

    def __init__(self, path: Path) -> None:
        """Raises UnusableKeysError where the file cannot be read or holds anything but public keys."""
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            cure = "Set JWT_PUBLIC_KEY_FILE to a readable PEM file, or leave it out."
            raise UnusableKeysError(f"{path} cannot be read ({error})", cure) from error
        self.keys: Sequence[PublicKey] = keys_of_pem(text)

    def known(self, algorithm: str, kid: str | None) -> Sequence[PublicKey]:
        """Every key of the algorithm: PEM gives keys no names."""
        return fitting(self.keys, algorithm, kid)

    async def learn(self, _: str | None) -> bool:
        """A file has told all it knows."""
        return False


def keys_of_pem(text: str) -> tuple[PublicKey, ...]:
    """The public keys of a PEM text, one or more. Raises UnusableKeysError for the first block that is none."""
    blocks = list(_BLOCK.finditer(text.replace("\r\n", "\n")))
    if not 1 <= len(blocks) <= KEYS_MAX or text.count("-----BEGIN") != len(blocks):
        found = f"it holds {len(blocks) or 'no'} whole PEM blocks"
        raise UnusableKeysError(found, f"Put 1 to {KEYS_MAX} public keys in PEM into it, one after the other.")
    return tuple(_of_block(place, block[1], block[0]) for place, block in enumerate(blocks, 1))


def _of_block(place: int, label: str, block: str) -> PublicKey:
    """One key. What was read is not repeated in an error: it may be a secret."""
    if "PRIVATE" in label:
        cure = "Take it out and treat it as leaked; `openssl pkey -in KEY -pubout` prints the public half."
        raise UnusableKeysError(f"block {place} is a private key", cure)
    if "PUBLIC KEY" not in label:
        cure = "`openssl x509 -in CERT -pubkey -noout` prints the key of a certificate."
        raise UnusableKeysError(f"block {place} is no public key but a {label}", cure)
    try:
        return _pinned(load_pem_public_key(block.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        cure = f"Use RSA of {RSA_BITS[0]} to {RSA_BITS[-1]} bits, P-256 or Ed25519."
        raise UnusableKeysError(f"block {place} is no key that is taken here", cure) from error


def _pinned(key: object, kid: str | None = None) -> PublicKey:
    """The key with the algorithm of its type. Raises ValueError for a type or size that is not taken."""
    if isinstance(key, RSAPublicKey) and key.key_size in RSA_BITS:
        return PublicKey("RS256", key, kid)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return PublicKey("ES256", key, kid)
    if isinstance(key, Ed25519PublicKey):
        return PublicKey("EdDSA", key, kid)
    raise ValueError("a key of a type or size that is not taken")


def keys_of_jwks(document: bytes) -> tuple[tuple[PublicKey, ...], int]:
    """The keys of a JWKS document that can be used here, and how many others it holds.

    Keys for other uses, of other types and private ones are passed over, as RFC 7517 section 5 asks. Raises
    UnusableKeysError where the document is no JWKS.
    """
    cure = 'JWT_JWKS_URL has to answer with {"keys": [...]} (RFC 7517).'
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UnusableKeysError("the document is no JWKS", cure) from error
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise UnusableKeysError(f"the document holds no list of at most {KEYS_MAX} keys", cure)
    found = tuple(key for key in map(_of_jwk, entries) if key is not None)
    return found, len(entries) - len(found)


def _of_jwk(entry: Any) -> PublicKey | None:
    """The key of one JWK; None where it is not for checking signatures of one of the algorithms."""
    if not isinstance(entry, dict) or any(name in entry for name in _NOT_PUBLIC):
        return None
    kty, crv, kid = entry.get("kty"), entry.get("crv", ""), entry.get("kid")
    if not (isinstance(kty, str) and isinstance(crv, str) and _is_name(kid)):
        return None
    algorithm, members = _MEMBERS.get((kty, crv), ("", ()))
    if not algorithm or not _for_signatures(entry, algorithm):
        return None
    values = {name: entry.get(name) for name in members}
    if not all(isinstance(value, str) for value in values.values()):
        return None
    try:
        return _pinned(jwt.PyJWK({"kty": kty, "crv": crv, **values}, algorithm).key, kid)
    except (jwt.PyJWTError, ValueError):
        return None


def _is_name(kid: object) -> bool:
    """Whether a key may be called so; None is no name at all."""
    return kid is None or (isinstance(kid, str) and len(kid) <= _KID_CHARS_MAX)


def _for_signatures(entry: dict[str, Any], algorithm: str) -> bool:
    """Whether a JWK says nothing against checking signatures of `algorithm` with it."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )
