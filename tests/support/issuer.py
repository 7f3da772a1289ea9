"""Somebody who signs tokens, and the server that publishes the public half of the keys."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Signer:
    """A key pair under a name. `alg` is what it signs with, `kid` (None: no name) goes into its tokens."""

    def __init__(self, alg: str, kid: str | None = None, *, private: PrivateKey | None = None) -> None:
        self.alg, self.kid = alg, kid
        self.private: Any = private or _made(alg)

    def named(self, kid: str | None) -> "Signer":
        """The same key under another name."""
        return Signer(self.alg, kid, private=self.private)

    def token(self, claims: dict[str, Any], *, alg: str = "", **header: Any) -> str:
        """A token with `claims`; `header` adds to its header or changes it."""
        named = {} if self.kid is None else {"kid": self.kid}
        return jwt.encode(claims, self.private, algorithm=alg or self.alg, headers=named | header)

    def pem(self) -> str:
        """The public key as a PEM block."""
        text: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return text.decode()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key as a JWKS document holds it, with `more` members or other ones."""
        algorithm: Any = get_default_algorithms()[self.alg]
        entry: dict[str, Any] = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        named = {} if self.kid is None else {"kid": self.kid}
        return entry | named | more


def _made(alg: str) -> PrivateKey:
    if alg in {"RS256", "RS384", "RS512", "PS256"}:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    curves: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES256K": ec.SECP256K1()}
    return ec.generate_private_key(curves[alg]) if alg in curves else ed25519.Ed25519PrivateKey.generate()


RSA: Final = Signer("RS256", "rsa-1")
EC: Final = Signer("ES256", "ec-1")
ED: Final = Signer("EdDSA", "ed-1")
"""One of each kind for all tests: making an RSA key takes a tenth of a second."""


def document(*entries: dict[str, Any]) -> bytes:
    """A JWKS document."""
    return json.dumps({"keys": list(entries)}).encode()


class _Quiet(ThreadingHTTPServer):
    """A client that leaves in the middle of an answer is what some tests are about."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class JwksServer:
    """`with JwksServer(document(...)) as server:` gives `.url`; what it answers may be changed while it runs.

    `held` stops it before its answer until `go` is set. `pem` (certificate and key in one file) makes it https.
    """

    def __init__(self, answer: bytes = b"", *, pem: str = "") -> None:
        self.answer, self.status = answer, 200
        self.headers: dict[str, str] = {}
        self.paths: list[str] = []
        self.held = False
        self.go = threading.Event()
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if pem else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """Where the document is."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/jwks.json"

    def publish(self, *signers: Signer) -> None:
        """Answer with the public keys of `signers` from now on."""
        self.answer = document(*(signer.jwk() for signer in signers))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nobody any more."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(owner) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.paths.append(self.path)
                if owner.held:
                    owner.go.wait()
                self.send_response(owner.status)
                for name, value in owner.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
