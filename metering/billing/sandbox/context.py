"""What a handler gets, and what a route declares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.errors import ApiError, missing
from metering.billing.sandbox.faults import Faults
from metering.billing.sandbox.fields import Fields

ACCOUNT_ID: Final = "acct_sandbox"


@dataclass(frozen=True, slots=True)
class Options:
    """How strict and how slow this Stripe is."""

    key: str | None = field(default=None, repr=False)
    """The only key that is taken; None takes every test key."""

    rate_per_s: int | None = None
    """Requests a second, above it 429 (a test account has 25: https://docs.stripe.com/rate-limits). None: no limit."""

    summary_lag_s: int = 0
    """How long summaries do not know an event yet."""

    report_window_s: int = 10
    """Errors of meter events are reported together, one report a meter and window."""


@dataclass(slots=True)
class Context:
    """One request, or one thing that fell due, inside one transaction of `db`."""

    db: Db
    now_s: int
    emit: Callable[..., Obj]
    """emit(type, object, previous=None): record an event of both kinds about the object as it is now."""

    emit_thin: Callable[..., Obj]
    """emit_thin(type, related=None, data=None): record an event that exists as a thin one alone."""

    faults: Faults
    options: Options
    path: str = ""
    base: str = ""
    """The address under which the caller reached the sandbox, without a slash at its end."""

    ids: dict[str, str] = field(default_factory=dict)
    """The parameters in the path by name."""

    expand: frozenset[str] = frozenset()
    """Places that the caller asked to see whole. The app expands ids by itself; look here for work worth saving."""

    @property
    def id(self) -> str:
        """The last id in the path."""
        return next(reversed(self.ids.values()))

    def need(self, kind: str, object_id: str | None = None, *, param: str = "id", noun: str = "") -> Obj:
        """An object by its id, or that in the path; ApiError 404 (400 for another `param`) where there is none."""
        wanted = self.id if object_id is None else object_id
        found = self.db.get(kind, wanted)
        if found is None:
            raise missing(noun or kind.rpartition(".")[2], wanted, param)
        return found


Handler = Callable[[Context, dict[str, Any]], Obj]
"""The answer to a call whose parameters were read already. Raises ApiError."""


class Route:
    """One call: `Route("POST", "/v1/customers/{customer}", update_customer, name=TEXT, items=Need(Many(...)))`."""

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        fields: Fields | None = None,
        *,
        lane: Callable[[Context, dict[str, Any]], str | None] | None = None,
        refused: Callable[[Context, dict[str, Any], ApiError], None] | None = None,
    ) -> None:
        """`lane` names what may have one call at a time: a second one is 429. `refused` notes what was refused."""
        self.method, self.path, self.handler, self.lane, self.refused = method, path, handler, lane, refused
        self.fields = fields or Fields()

    @property
    def version(self) -> int:
        """1 speaks forms, 2 speaks JSON."""
        return 2 if self.path.startswith("/v2/") else 1
