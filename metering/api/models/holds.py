"""Reservations and leases on the wire."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from metering.api.models.fields import Answer, FeatureName, HoldId, OrgId, Quantity, Request, unset, whole
from metering.store.holds import TTL_MAX_MS
from plans.limits import QUANTITY_MAX

RESERVATION_S_MAX: Final = TTL_MAX_MS // 1000

LEASE_S_MAX: Final = 300
"""A lease bounds what is spent out of sight, so it is short: a client that needs more takes the next one."""

ReservationLife: TypeAlias = Annotated[int, Field(ge=1, le=RESERVATION_S_MAX), BeforeValidator(whole)]
LeaseLife: TypeAlias = Annotated[int, Field(ge=1, le=LEASE_S_MAX), BeforeValidator(whole)]
Used: TypeAlias = Annotated[int, Field(ge=0, le=QUANTITY_MAX), BeforeValidator(whole)]

_ORG: Final = "The token's organisation when left out."
_ID: Final = "Makes repeating safe: the same id with the same content is the same one. Minted when left out."


class ReservationRequest(Request):
    """Units to be kept back until they are committed, released, or their time is over."""

    id: HoldId | None = unset(None, _ID)
    org_id: OrgId | None = unset(None, _ORG)
    feature: FeatureName
    quantity: Quantity
    ttl_s: ReservationLife = Field(description="Seconds after which they count for nothing.")


class CommitRequest(Request):
    """What was used of a reservation."""

    org_id: OrgId | None = unset(None, _ORG)
    quantity: Quantity | None = unset(None, "Units used; all that it keeps when left out. The rest is free again.")
    late_commit: bool = Field(default=False, description="One that has expired is decided as any event.")


class ExtendRequest(Request):
    """A longer life for a reservation."""

    org_id: OrgId | None = unset(None, _ORG)
    ttl_s: ReservationLife = Field(description="Seconds from now on.")


class LeaseRequest(Request):
    """Units to decide about locally. As many as fit are granted."""

    id: HoldId | None = unset(None, _ID)
    org_id: OrgId | None = unset(None, _ORG)
    feature: FeatureName
    quantity: Quantity
    ttl_s: LeaseLife = Field(description="Seconds to settle it in.")


class SettleRequest(Request):
    """What was used of a lease."""

    org_id: OrgId | None = unset(None, _ORG)
    used: Used = Field(description="Units used; 0 gives all of it back.")


class HoldQuery(Request):
    """Whose reservation or lease it is."""

    org_id: OrgId | None = unset(None, _ORG)


class ReservationView(Answer):
    """A reservation as it is now."""

    id: str
    org_id: str
    feature: str
    requested: int
    quantity: int = Field(description="Units kept back; fewer than `requested` where the plan caps.")
    status: Literal["held", "committed", "released", "expired"]
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
    committed: int = Field(description="Units that were counted in the end.")


class Balance(Answer):
    """The feature's counter now."""

    current_usage: int
    limit: int | None = Field(description="null: unlimited.")
    remaining: int | None = Field(description="Less what is reserved.")
    reserved: int = Field(description="Units that open reservations and leases keep.")


class ReservationAnswer(ReservationView, Balance):
    """A reservation that was made, and the balance with it."""


class LeaseView(Answer):
    """A lease as it is now."""

    lease_id: str
    org_id: str
    feature: str
    requested: int
    granted: int = Field(description="Units to decide about; fewer than `requested` where not all of them fit.")
    status: Literal["held", "settled", "released", "expired", "charged"]
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
    used: int = Field(description="Units that were counted in the end.")
    at_expiry: Literal["charge", "release"] = Field(description="What becomes of it where it is not settled in time.")


class LeaseAnswer(LeaseView, Balance):
    """A lease that was granted, and the balance with it."""


class SettleAnswer(LeaseAnswer):
    """A lease after it was settled. A repeat has `duplicate` true and `recorded` 0."""

    recorded: int = Field(description="Units counted now.")
    overage: int = Field(description="Units of these above the limit.")
    duplicate: bool
