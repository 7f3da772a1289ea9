"""What a start prints: what was chosen, and three lines to paste that work as they are."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from metering.auth import ADMIN
from metering.clock import Clock
from metering.settings import Settings
from metering.tokens import mint

ORG: Final = "org-123"

TOKEN_TTL_S: Final = 86_400
"""Long enough for a day of looking around, short enough to be lost in a terminal's history."""

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - read, not bound
"""Where to reach a service that listens everywhere."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The facts of one start. `store` says which store it is, in words."""

    settings: Settings
    clock: Clock
    port: int
    store: str
    with_token: bool

    def lines(self) -> Iterator[str]:
        """The text, line by line."""
        token = self._token() if self.with_token else ""
        yield f"usage-metering {version('usage-metering')} serves"
        yield f"  url     {self.url}  (document: {self.url}/docs)"
        yield f"  store   {self.store}"
        yield f"  data    {self.settings.data_dir.absolute()}"
        if token:
            yield f"  token   {token}  (admin, 24 h)"
        yield from self._cautions()
        yield "Try it:"
        yield from (f"  {line}" for line in self._examples(token))

    @property
    def url(self) -> str:
        """Where to reach the service from this machine."""
        host = self.settings.host
        shown = _ANY.get(host) or (f"[{host}]" if ":" in host else host)
        return f"http://{shown}:{self.port}"

    def _token(self) -> str:
        return mint(self.settings, self.clock, org=ORG, scopes=[ADMIN], ttl_s=TOKEN_TTL_S)

    def _cautions(self) -> Iterator[str]:
        """What must not be overlooked."""
        if self.settings.allow_lossy_ledger:
            yield "  ALLOW_LOSSY_LEDGER is set: the store may lose usage that was acknowledged"
        if self.settings.debug:
            yield "  DEBUG is set: weak secrets are let in; not for production"

    def _examples(self, token: str) -> Iterator[str]:
        """Three curl lines. Without a token of their own they make one."""
        made = shlex.quote(f"Authorization: Bearer {token}")
        asked = f'"Authorization: Bearer $(metering token --org {ORG} --scope {ADMIN} --ttl 1h)"'
        bearer = f"-H {made if token else asked}"
        event = shlex.quote(json.dumps({"org_id": ORG, "feature": "scans", "quantity": 5}))
        yield f"curl {self.url}/health"
        yield f"curl {self.url}/usage/track {bearer} -H 'Content-Type: application/json' -d {event}"
        yield f"curl {self.url}/usage/{ORG} {bearer}"
