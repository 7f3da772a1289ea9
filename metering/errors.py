"""Every error a caller can meet, drawn on top, mapped to HTTP in one place.

    Problem
    ├── 400 MalformedRequest, MalformedJson, MalformedEncoding, SignatureInvalid
    ├── 401 Unauthenticated
    ├── 402 CreditsExhausted, PaymentFailed
    ├── 403 QuotaExceeded, FeatureDisabled, Forbidden
    ├── 404 OrgNotFound, FeatureUnknown, PlanUnknown, HoldNotFound, EventNotFound, PeriodNotFound,
    │       NotFound, KeyNotFound, WindowNotFound, GrantNotFound
    ├── 405 MethodNotAllowed    408 RequestTimeout
    ├── 409 EventConflict, BatchRefused, HoldConflict, HoldExpired, HoldSettled, TooManyHolds, VersionConflict,
    │       GrantConflict, TooManyGrants,
    │       PeriodFinal, IdempotencyInProgress, IdempotencyNotKept, EventsNotKept, TooManyKeys,
    │       WindowNotDead, StripeNotConfigured, PlanNotSold, AlreadySubscribed, NotSubscribed, CustomerUnknown
    ├── 412 PreconditionFailed    413 TooLarge    415 UnsupportedMediaType
    ├── 422 Invalid, TimestampOutOfRange, TotalTooLarge, BelowZero, IdempotencyKeyReused, IntervalDiffers
    ├── 429 RateLimited
    ├── 431 HeadersTooLarge
    └── 5xx InternalError, StorageUnavailable, LedgerFull, Overloaded, ClockUnsafe, OrgCorrupt, KeysUnavailable,
            StripeFailed, StripeUnavailable, UsageSettling

The body is RFC 9457 `application/problem+json`. `code` is stable; `cure` says how to put it right; `errors` lists
each fault with the JSON pointer of its place (empty where there is but one fault, told by `detail`). What paying for
credits meets stands in `payment_errors`, keys of values in the store in `encryption_errors`.
"""

from collections.abc import Mapping
from typing import ClassVar


class Problem(Exception):
    """One refusal. `detail` is for people, `extra` holds extension members, `headers` go on the response."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    cure: ClassVar[str]
    retry_after_s: ClassVar[int | None] = None
    """Seconds to wait before the same request may succeed; None where waiting does not help."""

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra = extra
        self.headers = dict(headers or {})
        if self.retry_after_s is not None:
            self.headers.setdefault("Retry-After", str(self.retry_after_s))

    def members(self, request_id: str) -> dict[str, object]:
        """The members of the problem document, in the order they are sent."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "cure": self.cure,
            "retryable": self.retry_after_s is not None,
            "request_id": request_id,
            "errors": [],
            **self.extra,
        }


class MalformedRequest(Problem):
    status, code, title = 400, "malformed-request", "The bytes are no HTTP/1.1 request"
    cure = "Use an HTTP client; check proxies in between."


class MalformedJson(Problem):
    status, code, title = 400, "malformed-json", "The body is not valid JSON"
    cure = "Send one UTF-8 JSON object in which every key stands once."


class MalformedEncoding(Problem):
    status, code, title = 400, "malformed-encoding", "The body is not what its Content-Encoding says"
    cure = "Send whole gzip data (RFC 1952) with 'Content-Encoding: gzip', or the body as it is without that header."


class SignatureInvalid(Problem):
    status, code, title = 400, "signature-invalid", "The body is not signed by whom it says"
    cure = "See that STRIPE_WEBHOOK_SECRET holds the endpoint's secret, that proxies leave the body as it is, and NTP."


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "No valid credentials"
    cure = "Send 'Authorization: Bearer <token>'; `metering token` makes one."


class CreditsExhausted(Problem):
    status, code, title = 402, "credits-exhausted", "The credits do not suffice"
    cure = "Buy credits (GET /v1/credits/packages), move to a plan with room or wait for the reset date."


class PaymentFailed(Problem):
    status, code, title = 402, "payment-failed", "The payment did not succeed, so nothing changed"
    cure = "See to card and open invoices in the portal (POST /v1/billing/portal), then send a new request."


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

    def __init__(self, *_: object, **__: object) -> None:
        # Takes nothing in: an unknown organisation and somebody else's must answer the same to the last byte.
        super().__init__()


class FeatureUnknown(Problem):
    status, code, title = 404, "feature-unknown", "No such feature in the catalogue"
    cure = "Use a feature of the catalogue (GET /v1/plans), or add it there."


class PlanUnknown(Problem):
    status, code, title = 404, "plan-unknown", "No such plan in the catalogue"
    cure = "Use a plan of the catalogue (GET /v1/plans), or add it there."


class HoldNotFound(Problem):
    status, code, title = 404, "hold-not-found", "No such reservation or lease"
    cure = "Check the id and the organisation; a hold is told of for a day after its end."


class EventNotFound(Problem):
    status, code, title = 404, "event-not-found", "No event of this id is known"
    cure = "Ids are known in the month of receipt and the next, each with its source; correct older usage by delta."


class PeriodNotFound(Problem):
    status, code, title = 404, "period-not-found", "No period of this organisation began then"
    cure = "Give `period.start` of an answer of that time; a period without usage is not kept."


class NotFound(Problem):
    status, code, title = 404, "not-found", "No such path"
    cure = "See /openapi.json for every path."


class KeyNotFound(Problem):
    status, code, title = 404, "key-not-found", "No such API key"
    cure = "Take the key_id from GET /v1/keys; it is not the key itself."


class WindowNotFound(Problem):
    status, code, title = 404, "window-not-found", "No such window of overage"
    cure = "Take the window's id from GET /v1/stripe/outbox."


class GrantNotFound(Problem):
    status, code, title = 404, "grant-not-found", "No such grant of credits"
    cure = "Take the grant's id from GET /v1/orgs/{org_id}/grants."


class MethodNotAllowed(Problem):
    status, code, title = 405, "method-not-allowed", "The path does not take this method"
    cure = "Use a method named in the Allow header."


class RequestTimeout(Problem):
    status, code, title = 408, "request-timeout", "The request did not arrive in time"
    cure = "Send headers within 10 s and the whole body within 15 s more; retry with the same event_id."
    retry_after_s = 1


class EventConflict(Problem):
    status, code, title = 409, "event-conflict", "This event id was used for another event"
    cure = "Give every event an id of its own; repeat an id only with the same content."


class HoldConflict(Problem):
    status, code, title = 409, "hold-conflict", "This id was used for another hold"
    cure = "Give every reservation an id of its own; repeat an id only with the same feature and quantity."


class GrantConflict(Problem):
    status, code, title = 409, "grant-conflict", "This id was used for another grant"
    cure = "Give every grant an id of its own; repeat an id only with the same content."


class TooManyGrants(Problem):
    status, code, title = 409, "too-many-grants", "The organisation has 200 open grants of credits"
    cure = "Revoke some, or let them be used up or expire; one larger grant or package does as well as many."


class HoldExpired(Problem):
    status, code, title = 409, "reservation-expired", "The reservation or lease has ended"
    cure = "Commit before `expires_at`, extend in time, or send `late_commit` to have it decided as any event."


class HoldSettled(Problem):
    status, code, title = 409, "hold-settled", "The reservation or lease was settled before"
    cure = "Make a new one; what was committed, charged or released stays so."


class TooManyHolds(Problem):
    status, code, title = 409, "too-many-holds", "The organisation has 1,000 open reservations and leases"
    cure = "Commit or release some, or let them end."


class BatchRefused(Problem):
    status, code, title = 409, "batch-refused", "Some events cannot be counted, so none was"
    cure = "Put the events right whose result has a `problem`, or leave `atomic` out; then send all of them again."


class VersionConflict(Problem):
    status, code, title = 409, "version-conflict", "The organisation changed at the same time"
    cure = "Read it again and repeat the change."
    retry_after_s = 1


class TooManyKeys(Problem):
    status, code, title = 409, "too-many-keys", "There are as many API keys as there may be"
    cure = "Delete keys that nobody uses; GET /v1/keys shows when each was last used."


class IdempotencyInProgress(Problem):
    status, code, title = 409, "idempotency-in-progress", "The request with this Idempotency-Key is still running"
    cure = "Send it again, with the same key, after the time in Retry-After."
    retry_after_s = 1


class IdempotencyNotKept(Problem):
    status, code, title = 409, "idempotency-not-kept", "The request has run; its answer was too large to keep"
    cure = "Read what it changed. It is not carried out again; another request needs another key."


class EventsNotKept(Problem):
    status, code, title = 409, "events-not-kept", "This service keeps no raw events"
    cure = "Operators: set EVENT_RETENTION, for example to 7d; events are kept from then on."


class PeriodFinal(Problem):
    status, code, title = 409, "period-final", "The period is invoiced and final"
    cure = "Correct the running period instead, or issue a credit."


class StripeNotConfigured(Problem):
    status, code, title = 409, "stripe-not-configured", "This service has no Stripe"
    cure = "Operators: set STRIPE_SECRET_KEY, or start with --sandbox. Everything but billing works without."


class PlanNotSold(Problem):
    status, code, title = 409, "plan-not-sold", "Stripe has no price for this plan"
    cure = "Operators: run `metering stripe setup`, or name the plan's price. Free and custom plans are not bought."


class AlreadySubscribed(Problem):
    status, code, title = 409, "already-subscribed", "The organisation has a subscription"
    cure = "Change or end the subscription it has: a second one would be paid beside it."


class NotSubscribed(Problem):
    status, code, title = 409, "not-subscribed", "The organisation has no subscription"
    cure = "Buy a plan first: POST /v1/billing/checkout."


class CustomerUnknown(Problem):
    status, code, title = 409, "customer-unknown", "Stripe does not know the organisation's customer"
    cure = "Set the right stripe_customer_id with POST /billing/update."


class WindowNotDead(Problem):
    status, code, title = 409, "window-not-dead", "The window is not dead"
    cure = "Only windows that Stripe refused, or that nobody can decide about, are replayed or discarded."


class PreconditionFailed(Problem):
    status, code, title = 412, "precondition-failed", "It is not in the state that the request asks for"
    cure = "Read it again, and send the change with the ETag it has now in If-Match."


class TooLarge(Problem):
    status, code, title = 413, "too-large", "The body is too large"
    cure = "Send at most 64 KiB an event; a batch holds at most 1 MiB, unpacked, and 1,000 events."


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported-media-type", "The body's content type is not taken here"
    cure = "Send a Content-Type that the answer's Accept header names, compressed in no way but one it names."


class Invalid(Problem):
    status, code, title = 422, "validation", "The request has faults"
    cure = "Put each entry of `errors` right; `pointer` names its place."


class TimestampOutOfRange(Problem):
    status, code, title = 422, "timestamp-out-of-range", "The event's timestamp cannot be accepted"
    cure = "Send events within the window named in `detail`; record older usage as an adjustment."


class IntervalDiffers(Problem):
    status, code, title = 422, "interval-differs", "The plan is paid for another length of time than the one before"
    cure = (
        "Let the subscription end with its period (POST /v1/billing/subscription/cancel) and buy the other plan then."
    )


class TotalTooLarge(Problem):
    status, code, title = 422, "total-too-large", "The counter would pass 2^53 - 1"
    cure = "Meter this feature in a larger unit."


class IdempotencyKeyReused(Problem):
    status, code, title = 422, "idempotency-key-reused", "This Idempotency-Key was used for another request"
    cure = "Give every request a key of its own; repeat a key only with the same method, URL and body."


class BelowZero(Problem):
    status, code, title = 422, "below-zero", "The correction would take out more than was counted"
    cure = "Take out at most `current_usage`, or name the `period` that the usage was counted in."


class RateLimited(Problem):
    status, code, title = 429, "rate-limited", "Too many events in a short time"
    cure = "Send the event again, with its event_id, after the time in Retry-After."
    retry_after_s = 1


class HeadersTooLarge(Problem):
    status, code, title = 431, "headers-too-large", "The request's headers are too large"
    cure = "Send at most 64 headers and 16 KiB of them in all."


class InternalError(Problem):
    status, code, title = 500, "internal-error", "The service failed"
    cure = "Report the request_id; the service's log holds the cause."


class StripeFailed(Problem):
    status, code, title = 502, "stripe-error", "Stripe refused the call"
    cure = "Operators: the log holds Stripe's words, stripe_request_id finds the call in its Dashboard."


class StripeUnavailable(Problem):
    status, code, title = 503, "stripe-unavailable", "Stripe did not answer in time"
    cure = "Retry with the same Idempotency-Key: what has begun is not begun again."
    retry_after_s = 5


class UsageSettling(Problem):
    status, code, title = 503, "usage-settling", "Usage is still on its way to Stripe"
    cure = "Retry with the same Idempotency-Key, or let the subscription end with its period: that bills all of it."
    retry_after_s = 10


class StorageUnavailable(Problem):
    status, code, title = 503, "storage-unavailable", "The store did not answer in time"
    cure = "Retry with the same event_id: an event that was counted is not counted again."
    retry_after_s = 1


class LedgerFull(Problem):
    status, code, title = 503, "ledger-full", "The store takes no writes"
    cure = "Operators: raise maxmemory or free disk space. Callers: retry with the same event_id."
    retry_after_s = 30


class Overloaded(Problem):
    status, code, title = 503, "overloaded", "Too many requests are waiting"
    cure = "Retry after the time in Retry-After with the same event_id."
    retry_after_s = 1


class ClockUnsafe(Problem):
    status, code, title = 503, "clock-unsafe", "The clocks of service and store differ too far"
    cure = "Operators: synchronise both clocks (NTP). Nothing is counted while they differ by over 60 s."
    retry_after_s = 30


class OrgCorrupt(Problem):
    status, code, title = 503, "org-corrupt", "The organisation's data has an unexpected shape"
    cure = "Operators: see docs/troubleshooting.md#org-corrupt. Other organisations are not affected."
    retry_after_s = 60


class KeysUnavailable(Problem):
    status, code, title = 503, "keys-unavailable", "The keys that tokens are checked with cannot be fetched"
    cure = "Operators: see that JWT_JWKS_URL answers. Callers: retry with the same event_id."
    retry_after_s = 5


def leaves(root: type[Problem] = Problem) -> tuple[type[Problem], ...]:
    """Every concrete problem class, in order of definition."""
    return tuple(leaf for child in root.__subclasses__() for leaf in (leaves(child) or (child,)))
