"""What can become of a call to Stripe, drawn on top. The gateway maps every error of the client to one of these.

    GatewayError
    ├── Refused            4xx: the same call will fail again
    │   ├── Duplicate      a meter event with this identifier is there already: it was delivered
    │   ├── NotThere       404: no such object (`resource_missing`)
    │   ├── Declined       402: the card was declined
    │   ├── KeyReused      the Idempotency-Key was used with other parameters
    │   └── Barred         401, 403: the API key does not hold, or not for this
    ├── TooMany            429: later, after `retry_after_s` where Stripe says so
    └── Unknown            5xx, a broken connection, a timeout, an answer that is no JSON: it may have happened or not

Texts and codes: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes.
"""

from collections.abc import Mapping
from typing import ClassVar, Final


class GatewayError(Exception):
    """A call that did not succeed. `message` is Stripe's, shortened; it may name ids, never secrets."""

    settled: ClassVar[bool]
    """Whether it is known that nothing happened."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str = "",
        param: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
        intent_id: str = "",
    ) -> None:
        """`intent_id`: the payment that a card declined, which is there all the same."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.intent_id = intent_id


def outcome_of(error: GatewayError) -> str:
    """One of OUTCOMES, for the metrics."""
    return next(name for kind, name in _NAMES.items() if isinstance(error, kind))


class Refused(GatewayError):
    """4xx: wrong, and wrong again next time."""

    settled = True


class Duplicate(Refused):
    """A meter event with this identifier is there already. Stripe answers 400, and it means delivered."""


class NotThere(Refused):
    """No such object."""


class Declined(Refused):
    """The card was declined; `code` says why, `authentication_required` that the payer must act."""


class KeyReused(Refused):
    """The Idempotency-Key was used with other parameters."""


class Barred(Refused):
    """The API key does not hold, or not for this call. Nothing of ours is wrong: it waits for an operator."""


class TooMany(GatewayError):
    """429: nothing happened; later."""

    settled = True


class Unknown(GatewayError):
    """Nobody can say whether it happened."""

    settled = False


_NAMES: Final[Mapping[type[GatewayError], str]] = {
    Duplicate: "duplicate",
    Barred: "barred",
    Declined: "declined",
    Refused: "refused",
    TooMany: "rate_limited",
    Unknown: "unknown",
    GatewayError: "unknown",
}
"""From the leaves up: the first that fits names an error."""

OUTCOMES: Final = ("ok", *dict.fromkeys(_NAMES.values()))
"""What can become of a call; `unknown` may have happened, and `barred` says that the API key does not hold."""
