"""What a start prints: what was chosen, and three lines to paste that work as they are."""

import json
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from metering.auth import ADMIN
from metering.catalogues import text_of
from metering.clock import Clock
from metering.settings import Settings
from metering.tokens import mint

ORG: Final = "org-123"

TOKEN_TTL_S: Final = 86_400
"""Long enough for a day of looking around, short enough to be lost in a terminal's history."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The facts of one start: `settings` with the address that was bound; which `store` and `stripe` it is, in words.

    `program` is what was started (argv[0]).
    """

    settings: Settings
    clock: Clock
    store: str
    stripe: str
    show_token: bool
    program: str

    def lines(self) -> Iterator[str]:
        """The text, line by line."""
        token, url = self._token(), self.settings.service_url()
        yield f"usage-metering {version('usage-metering')} serves"
        yield f"  url     {url}  (document: {url}/docs)"
        yield f"  store   {self.store}"
        yield f"  stripe  {self.stripe}"
        yield f"  data    {self.settings.data_dir.absolute()}"
        if token:
            yield f"  token   {token}  (admin, 24 h)"
        yield from self._cautions()
        yield "Try it:"
        yield from (f"  {line}" for line in self._examples(token))

    def _token(self) -> str:
        """A token for a person at this machine. What listens for others runs where output is collected: ''.

        On somebody's own store a development start may show one, any other has to be asked to.
        """
        settings = self.settings
        looking_around = settings.bound_to_loopback() and (settings.debug or settings.redis_url is None)
        if not (self.show_token or looking_around):
            return ""
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
        asked = f'"Authorization: Bearer $({self._command()} token --org {ORG} --scope {ADMIN} --ttl 1h)"'
        bearer = f"-H {made if token else asked}"
        event = shlex.quote(json.dumps({"org_id": ORG, "feature": self._feature(), "quantity": 5}))
        url = self.settings.service_url()
        yield f"curl {url}/health"
        yield f"curl {url}/usage/track {bearer} -H 'Content-Type: application/json' -d {event}"
        yield f"curl {url}/usage/{ORG} {bearer}"

    def _feature(self) -> str:
        """The first feature of the catalogue, which the workers that serve by now could read."""
        catalogue = tomllib.loads(text_of(self.settings.plans_file)[0])
        return str(next(iter(catalogue["features"])))

    def _command(self) -> str:
        """The command line of this installation as a shell runs it from anywhere, on PATH or not."""
        script = Path(self.program).absolute()
        if script.name == "metering":
            return shlex.quote(str(script))
        return f"{shlex.quote(sys.executable)} -m metering.cli"
