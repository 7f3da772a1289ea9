"""Reservations and leases."""

from typing import Final

from metering.api import leases, reservations
from metering.api.models.holds import (
    CommitRequest,
    ExtendRequest,
    HoldQuery,
    LeaseAnswer,
    LeaseRequest,
    LeaseView,
    ReservationAnswer,
    ReservationRequest,
    ReservationView,
    SettleAnswer,
    SettleRequest,
)
from metering.api.models.usage import TrackAnswer
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import USAGE_READ, USAGE_WRITE
from metering.errors import (
    CreditsExhausted,
    FeatureDisabled,
    FeatureUnknown,
    HoldConflict,
    HoldExpired,
    HoldNotFound,
    HoldSettled,
    Invalid,
    OrgNotFound,
    QuotaExceeded,
    RateLimited,
    TooManyHolds,
    TotalTooLarge,
)

_REFUSED: Final = (CreditsExhausted, QuotaExceeded, FeatureDisabled, FeatureUnknown, OrgNotFound, *READS)
_MADE: Final = (*_REFUSED, HoldConflict, TooManyHolds, RateLimited)
_SETTLED: Final = (*_REFUSED, HoldNotFound, HoldExpired, HoldSettled, TotalTooLarge)
_LOOKED_AT: Final = (Invalid, OrgNotFound, HoldNotFound, *READS)

_ASKED: Final = {"id": "job-7", "org_id": "org-123", "feature": "scans", "quantity": 5, "ttl_s": 600}
_BALANCE: Final = {"current_usage": 15, "limit": 1000, "remaining": 980, "reserved": 5}
_RESERVATION: Final = {
    "id": "job-7",
    "org_id": "org-123",
    "feature": "scans",
    "requested": 5,
    "quantity": 5,
    "status": "held",
    "expires_at": "2024-01-15T10:40:00Z",
    "committed": 0,
}
_COMMITTED: Final = {
    "org_id": "org-123",
    "feature": "scans",
    "current_usage": 18,
    "limit": 1000,
    "remaining": 982,
    "reset_date": "2024-02-01T00:00:00Z",
    "event_id": "job-7",
    "allowed": True,
    "recorded": 3,
    "duplicate": False,
    "overage": 0,
    "unlimited": False,
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "thresholds_crossed": [],
    "decided_by": "plan_limit",
}

_LEASED: Final = {"id": "agent-1", "org_id": "org-123", "feature": "scans", "quantity": 100, "ttl_s": 60}
_LEASE: Final = {
    "lease_id": "agent-1",
    "org_id": "org-123",
    "feature": "scans",
    "requested": 100,
    "granted": 100,
    "status": "held",
    "expires_at": "2024-01-15T10:31:00Z",
    "used": 0,
    "at_expiry": "charge",
}
_GRANTED: Final = {"current_usage": 18, "limit": 1000, "remaining": 882, "reserved": 100}
_SETTLED_LEASE: Final = _LEASE | {
    "status": "settled", "used": 42, "current_usage": 60, "limit": 1000, "remaining": 940, "reserved": 0,
    "recorded": 42, "overage": 0, "duplicate": False,
}  # fmt: skip

_ONE: Final = "/v1/reservations/{reservation_id}"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/reservations", "Keep units back", USAGE_WRITE, "holds", reservations.reserve,
        {201: ReservationAnswer}, request=ReservationRequest, problems=_MADE, rated=True, example=_ASKED,
        shows=_RESERVATION | _BALANCE,
        about="Decided as an event of so many units would be. Nobody else can have them until they are committed,"
        " released, or expire; from that instant on they count for nothing. The same id with the same feature and"
        " quantity is the same reservation, answered again with its status by now.",
    ),
    Route(
        "GET", _ONE, "A reservation", USAGE_READ, "holds", reservations.get_reservation, {200: ReservationView},
        query=HoldQuery, problems=_LOOKED_AT, shows=_RESERVATION,
        about="Told of for a day after its end.",
    ),
    Route(
        "POST", f"{_ONE}/commit", "Count what was used of a reservation", USAGE_WRITE, "holds",
        reservations.commit_reservation, {200: TrackAnswer},
        request=CommitRequest, problems=_SETTLED, rated=True, example={"org_id": "org-123", "quantity": 3},
        shows=_COMMITTED,
        about="Up to what it keeps always counts, and the rest is free again. More is decided as any event; where that"
        " is refused, the reservation stays as it is. The same commit again is a duplicate.",
    ),
    Route(
        "POST", f"{_ONE}/extend", "Let a reservation live longer", USAGE_WRITE, "holds",
        reservations.extend_reservation, {200: ReservationView},
        request=ExtendRequest, problems=(*_LOOKED_AT, HoldExpired, HoldSettled),
        example={"org_id": "org-123", "ttl_s": 600}, shows=_RESERVATION,
    ),
    Route(
        "DELETE", _ONE, "Release a reservation", USAGE_WRITE, "holds", reservations.release_reservation, {204: ""},
        query=HoldQuery, problems=(*_LOOKED_AT, HoldSettled),
        about="Repeating is safe. One that was committed stays so: 409.",
    ),
    Route(
        "POST", "/v1/leases", "Take units to decide about locally", USAGE_WRITE, "holds", leases.lease,
        {201: LeaseAnswer}, request=LeaseRequest, problems=_MADE, rated=True, example=_LEASED, shows=_LEASE | _GRANTED,
        about="Grants as many as fit. What leases have granted bounds what can be spent out of sight. One that is not"
        " settled in time is charged whole or released, as the catalogue says of the feature.",
    ),
    Route(
        "GET", "/v1/leases/{lease_id}", "A lease", USAGE_READ, "holds", leases.get_lease, {200: LeaseView},
        query=HoldQuery, problems=_LOOKED_AT, shows=_LEASE, about="Told of for a day after its end.",
    ),
    Route(
        "POST", "/v1/leases/{lease_id}/settle", "Say what was used of a lease", USAGE_WRITE, "holds",
        leases.settle_lease, {200: SettleAnswer},
        request=SettleRequest, problems=_SETTLED, rated=True, example={"org_id": "org-123", "used": 42},
        shows=_SETTLED_LEASE,
        about="Up to what was granted always counts, and the rest is free again; 0 gives all of it back. More is"
        " decided as any event; where that is refused, the lease stays as it is. The same again is a duplicate.",
    ),
)  # fmt: skip
