"""The Idempotency-Key store: https://docs.stripe.com/api/idempotent_requests."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from metering.billing.sandbox.db import Db
from metering.billing.sandbox.errors import ApiError, conflict

KEPT_S: Final = 86_400
"""24 hours on the sandbox's clock, after which a key is new."""

KEY_MAX: Final = 255

_KIND: Final = "sandbox.idempotency"
_OTHER_PARAMS: Final = (
    "Keys for idempotent requests can only be used with the same parameters they were first used with. "
    "Try using a key other than '{}' if you meant to execute a different request."
)
_IN_FLIGHT: Final = (
    "There is currently another in-progress request using this Idempotent Key (that probably means you submitted "
    "twice, and the other request is still going through): {}. Please try again later."
)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given under a key."""

    status: int
    body: str
    request_id: str


@dataclass(slots=True)
class Keys:
    """Which keys are in flight in this process, and what is kept in the database."""

    db: Db
    _in_flight: set[str] = field(default_factory=set)

    def begin(self, key: str, print_of: str, now_s: int) -> Kept | None:
        """Take `key`: the kept answer, or None for a new key, which is in flight until `end`.

        Raises ApiError: 400 `idempotency_error` for other parameters, 409 where the same key is in flight.
        """
        if len(key) > KEY_MAX:
            raise ApiError(f"Idempotency keys have at most {KEY_MAX} characters.", kind="idempotency_error")
        row = self.db.get(_KIND, key)
        if row is not None and row["at"] > now_s - KEPT_S:
            if row["print"] != print_of:
                raise ApiError(_OTHER_PARAMS.format(key), kind="idempotency_error")
            return Kept(row["status"], row["body"], row["request"])
        if key in self._in_flight:
            raise conflict(_IN_FLIGHT.format(key), code="idempotency_key_in_use")
        self._in_flight.add(key)
        return None

    def keep(self, key: str, print_of: str, kept: Kept, now_s: int) -> None:
        """Keep the answer to a key, in the transaction of its effect."""
        told = {"status": kept.status, "body": kept.body, "request": kept.request_id}
        self.db.put(_KIND, {"id": key, "print": print_of, "at": now_s, **told}, at=now_s)
        self.db.forget(_KIND, before=now_s - KEPT_S)

    def end(self, key: str) -> None:
        """The request under `key` is over."""
        self._in_flight.discard(key)


def fingerprint(method: str, path: str, params: dict[str, Any]) -> str:
    """What has to be the same under one key: the call and its parameters."""
    text = json.dumps([method, path, params], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
