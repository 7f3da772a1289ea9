"""Every error a caller can meet, drawn on top, mapped to HTTP in one place.

    Problem
    ├── 400 MalformedJson
    ├── 401 Unauthenticated
    ├── 403 QuotaExceeded, FeatureDisabled, Forbidden
    ├── 404 OrgNotFound, FeatureUnknown, PlanUnknown, NotFound
    ├── 405 MethodNotAllowed
    ├── 409 EventConflict, VersionConflict
    ├── 413 TooLarge
    ├── 415 UnsupportedMediaType
    ├── 422 Invalid, TimestampOutOfRange, TotalTooLarge
    └── 5xx InternalError, StorageUnavailable, LedgerFull, Overloaded, ClockUnsafe, OrgCorrupt

The body is RFC 9457 `application/problem+json`. `code` is stable; `cure` says how to put it right.
"""

from collections.abc import Mapping
from typing import ClassVar


class Problem(Exception):
    """One refusal. `detail` is for people, `extra` holds extension members, `headers` go on the response."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    cure: ClassVar[str]

    def __init__(
        self, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: object
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra = extra
        self.headers = dict(headers or {})


class MalformedJson(Problem):
    status, code, title = 400, "malformed-json", "The body is not valid JSON"
    cure = "Send one UTF-8 JSON object in which every key stands once."


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "No valid credentials"
    cure = "Send 'Authorization: Bearer <token>'; `metering token` makes one."


class QuotaExceeded(Problem):
    status, code, title = 403, "quota-exceeded", "Usage limit reached"
    cure = "Wait for the reset date or move to a plan with room; retrying alone does not help."


class FeatureDisabled(Problem):
    status, code, title = 403, "feature-disabled", "The plan does not include this feature"
    cure = "Move the organisation to a plan that includes the feature."


class Forbidden(Problem):
    status, code, title = 403, "forbidden", "The credentials lack the scope for this call"
    cure = "Use a token with the scope named in `detail`."


class OrgNotFound(Problem):
    status, code, title = 404, "org-not-found", "No such organisation"
    cure = "Check the id; an organisation exists from its first event or PUT /v1/orgs/{org_id} on."


class FeatureUnknown(Problem):
    status, code, title = 404, "feature-unknown", "No such feature in the catalogue"
    cure = "Use a feature of the catalogue (GET /v1/plans), or add it there."


class PlanUnknown(Problem):
    status, code, title = 404, "plan-unknown", "No such plan in the catalogue"
    cure = "Use a plan of the catalogue (GET /v1/plans), or add it there."


class NotFound(Problem):
    status, code, title = 404, "not-found", "No such path"
    cure = "See /openapi.json for every path."


class MethodNotAllowed(Problem):
    status, code, title = 405, "method-not-allowed", "The path does not take this method"
    cure = "Use a method named in the Allow header."


class EventConflict(Problem):
    status, code, title = 409, "event-conflict", "This event id was used for another event"
    cure = "Give every event an id of its own; repeat an id only with the same content."


class VersionConflict(Problem):
    status, code, title = 409, "version-conflict", "The organisation changed at the same time"
    cure = "Read it again and repeat the change."


class TooLarge(Problem):
    status, code, title = 413, "too-large", "The body is too large"
    cure = "Send at most 64 KiB an event."


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported-media-type", "The body's content type is not taken here"
    cure = "Send 'Content-Type: application/json'."


class Invalid(Problem):
    status, code, title = 422, "validation", "The request has faults"
    cure = "Put each entry of `errors` right; `pointer` names its place."


class TimestampOutOfRange(Problem):
    status, code, title = 422, "timestamp-out-of-range", "The event's timestamp cannot be accepted"
    cure = "Send events within the window named in `detail`; record older usage as an adjustment."


class TotalTooLarge(Problem):
    status, code, title = 422, "total-too-large", "The counter would pass 2^53 - 1"
    cure = "Meter this feature in a larger unit."


class InternalError(Problem):
    status, code, title = 500, "internal-error", "The service failed"
    cure = "Report the request_id; the service's log holds the cause."


class StorageUnavailable(Problem):
    status, code, title = 503, "storage-unavailable", "The store did not answer in time"
    cure = "Retry with the same event_id: an event that was counted is not counted again."


class LedgerFull(Problem):
    status, code, title = 503, "ledger-full", "The store takes no writes"
    cure = "Operators: raise maxmemory or free disk space. Callers: retry with the same event_id."


class Overloaded(Problem):
    status, code, title = 503, "overloaded", "Too many requests are waiting"
    cure = "Retry after the time in Retry-After with the same event_id."


class ClockUnsafe(Problem):
    status, code, title = 503, "clock-unsafe", "The clocks of service and store differ too far"
    cure = "Operators: synchronise both clocks (NTP). Nothing is counted while they differ by over 60 s."


class OrgCorrupt(Problem):
    status, code, title = 503, "org-corrupt", "The organisation's data has an unexpected shape"
    cure = "Operators: see docs/troubleshooting.md#org-corrupt. Other organisations are not affected."


def leaves(root: type[Problem] = Problem) -> tuple[type[Problem], ...]:
    """Every concrete problem class, in order of definition."""
    return tuple(leaf for child in root.__subclasses__() for leaf in (leaves(child) or (child,)))
