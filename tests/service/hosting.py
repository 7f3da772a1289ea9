"""Routes of a test's own behind the real door: the front, the endpoint, real tokens, answers kept in a real store."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import orjson

from metering.api.endpoint import router
from metering.api.front import Front
from metering.api.route import Route
from metering.auth import Authenticator
from metering.clock import SystemClock
from metering.jwts import JwtVerifier
from metering.store.connect import connect
from metering.store.kept import KeptAnswers
from metering.store.keys import Keys
from metering.ulid import Ulids
from tests.service.running import SECRET, token

DATASET_SECRET: Final = b"a secret of this data set, 32 B."
KEEP_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(orjson.loads(self.body)["code"])

    @property
    def replayed(self) -> bool:
        """Whether it says that it was given before."""
        return self.headers.get("idempotency-replayed") == "true"


class Host:
    """One worker that serves `routes` over the store at `url`. Its requests run in the test's own loop."""

    def __init__(self, url: str, *routes: Route, retries: int = 0, fake: bool = False) -> None:
        clock = SystemClock()
        self.client: Any = connect(url, retries=retries)
        self.kept = KeptAnswers(self.client, Keys(4), DATASET_SECRET, keep_s=KEEP_S, fake=fake)
        auth = Authenticator([JwtVerifier(SECRET, clock)], clock)
        services: Any = SimpleNamespace(auth=auth, kept=self.kept)
        self._front = Front(_nobody, router(routes, services, _nobody), Ulids(clock), _unseen, clock)

    async def ask(
        self,
        key: str | None = None,
        *,
        method: str = "POST",
        path: str = "/do",
        query: str = "",
        body: bytes = b"{}",
        bearer: str | None = None,
        **headers: str,
    ) -> Answered:
        """One request under `key`; `headers` by their names with underscores."""
        listed = [
            (b"authorization", f"Bearer {bearer or token('org-1')}".encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        listed += [(b"idempotency-key", key.encode("latin-1"))] if key is not None else []
        listed += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": method, "path": path, "root_path": "",
            "query_string": query.encode(), "headers": listed,
        }  # fmt: skip
        return await self._answered(scope, body)

    async def _answered(self, scope: dict[str, Any], body: bytes) -> Answered:
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._front(scope, receive, send)
        start, *rest = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answered(start["status"], headers, b"".join(message["body"] for message in rest))

    async def kept_keys(self) -> list[str]:
        """The keys under which something is kept."""
        return sorted([key.decode() async for key in self.client.scan_iter(match="*:k:*")])

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


async def _nobody(*_: Any) -> None:
    raise AssertionError("nothing of this test goes there")


def _unseen(method: str, route: str, status: int, seconds: float) -> None:
    del method, route, status, seconds
