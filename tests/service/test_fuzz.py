"""Everything the document allows, and much it does not, sent to the service: no surprise ever comes back."""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import settings
from hypothesis import strategies as st
from requests import Request, Session
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from schemathesis.generation.hypothesis import builder
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from metering.api.document import document
from metering.api.document_headers import PARAMETERS
from metering.api.models.live_events import SECONDS_MAX
from metering.api.routes import ROUTES
from metering.auth import ADMIN
from tests.service.dying import one_dead
from tests.service.running import Running, token
from tests.service.subscribing import subscribed
from tests.support.selling import with_packages
from tests.support.soak import drawn, often
from tests.support.stripe_mail import SECRET, header
from tests.support.stripe_till import Till, till

EXAMPLES: Final = often(40, 2)
"""Generated for each operation, besides those that cover the schema's borders one by one."""

KNOWN: Final = "org-123"

GRANTS: Final = f"/v1/orgs/{KNOWN}/grants"

EVENT: Final = "evt_9"
"""An event of that organisation, with the content that the document's example has."""

now = datetime.now(UTC)
schemathesis.openapi.format(
    "iana-time-zone", st.sampled_from(["UTC", "Europe/Paris", "America/St_Johns", "Asia/Tokyo"])
)
schemathesis.openapi.format(
    "date-time", st.integers(0, 30).map(lambda days: (now - timedelta(days=days)).isoformat().replace("+00:00", "Z"))
)

BORDERS: Final = 3
"""Of so many operations a run walks along the borders of one: a hundred cases each, and most of the time."""

OLDER: Final = drawn([route for route in ROUTES if route.successor], 3)
"""Older ways to ask, which lead to the same handlers: each run takes some of them."""

FUZZED: Final = [route for route in ROUTES if not route.successor or route in OLDER]

SEMANTIC: Final = {
    "atomic-events", "atomic-orgs", "conflict",
    "idempotency-key-reused", "feature-unknown", "metadata-size", "out-of-range", "timestamp",
    "beyond-retention", "dimension-minutes", "dimension-unknown", "dimensions", "not-kept", "one-of",
    "below-zero", "recorded", "other-organisation", "stripe-event", "url-not-allowed",
    "package-unknown", "idempotency-key", "not-in-the-future", "price",
}  # fmt: skip
"""Faults that no schema can tell: they depend on the catalogue, the clock, or the sum of the parts."""

LIVE: Final = "/v1/admin/events"
ASKED: Final = [(route.method, path) for route in FUZZED for path in (route.path, *route.aliases)]
PATHS: Final = list(dict.fromkeys(path for _, path in ASKED))
OPERATIONS: Final = [f"{method} {path}" for method, path in sorted(ASKED, key=lambda asked: PATHS.index(asked[1]))]
"""In the order of the document: what one of them leaves behind decides what the next ones meet."""


WALKED: Final = drawn(OPERATIONS, BORDERS)
"""Those whose borders this run walks along."""

ENDS: Final = (("/v1/orgs/{org_id}/erasure", "GET"), ("/v1/orgs/{org_id}", "DELETE"))
HOLDS: Final = (("reservation_id", "/v1/reservations", "id"), ("lease_id", "/v1/leases", "lease_id"))
"""Ids in paths that have to be made first: the path's parameter, where one is made, how its answer calls it."""

Tally = defaultdict[str, Counter[int]]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Statuses by operation. At the end every operation must have been asked, and every one whose borders were walked
    along must have succeeded at least once: of a few examples that are drawn none may be good.
    """
    seen: Tally = defaultdict(Counter)
    yield seen
    cases = sum(sum(statuses.values()) for statuses in seen.values())
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        sys.stdout.write(f"\nfuzzed: {cases} cases over {len(seen)} operations\n")
    assert seen.keys() == set(OPERATIONS)
    never = [operation for operation in WALKED if not any(200 <= status < 300 for status in seen[operation])]
    assert not never, f"never answered with 2xx: {never}"


@pytest.fixture(scope="module")
def described() -> Any:
    """The document, as the generator reads it."""
    load_all_checks()
    return schemathesis.openapi.from_dict(document(FUZZED, "fuzzed"))


@pytest.fixture(scope="module")
def sells() -> Iterator[Till]:
    """A Stripe to buy at."""
    with till() as running:
        yield running


@pytest.fixture(scope="module")
def fuzzed(sells: Till, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service in which every route has something to answer, with one organisation that the generator is told of."""
    plans = with_packages(tmp_path_factory.mktemp("plans"))
    stripe: dict[str, Any] = {"stripe_webhook_secret": SECRET, "stripe_secret_key": "sk_test_1", "plans_file": plans}
    with Running(event_retention="24h", stripe_api_base=sells.url, **stripe) as service:
        service.track(org_id=KNOWN, feature="scans", quantity=100)
        service.track(org_id=KNOWN, feature="scans", quantity=5, event_id=EVENT, source="svc-a")
        yield service


@pytest.fixture(scope="module")
def line() -> Iterator[Session]:
    """Connections that stay open from case to case."""
    with Session() as session:
        yield session


def bought(service: Running, sells: Till, body: Any) -> dict[str, Any]:
    """The body, of a payment for credits that succeeded; a refund of a part of it."""
    asked = {"org_id": KNOWN, "credit_amount": 100}
    made = service.call("POST", "/billing/create-payment-intent", token(None, ADMIN), json=asked)
    body["payment_intent_id"] = made.json()["payment_intent_id"]
    sells.pay(body["payment_intent_id"])
    known: dict[str, Any] = {"org_id": KNOWN} if "org_id" in body else {"amount": 10} if "amount" in body else {}
    name = {"id": body["payment_intent_id"]} if "reason" in body else {}  # a refund needs one
    return {**body, **known, **name}


def voidable(service: Running) -> tuple[str, dict[str, Any]]:
    """An event that can be taken back, and what to say of it."""
    name = f"evt_void_{next(turns['void'])}"
    assert service.track(org_id=KNOWN, feature="scans", quantity=5, event_id=name).status_code == 200
    return name, {"org_id": KNOWN, "feature": "scans", "quantity": 5, "reason": "fuzzed"}


turns: defaultdict[str, Iterator[int]] = defaultdict(count)


def every_other(name: str) -> bool:
    """Whether it is this name's turn. Each has turns of its own: of two that take turns together one has none."""
    return next(turns[name]) % 2 == 1


def spoilt(headers: Mapping[str, str]) -> set[str]:
    """Headers that the generator takes for good although a pattern of the document refuses them: it draws optional
    headers of its border cases without their schema. The service's fault code is the name of the header.
    """
    patterns = [(shown["name"], re.compile(shown["schema"]["pattern"])) for shown in PARAMETERS.values()]
    return {name.lower() for name, pattern in patterns if name in headers and not pattern.search(headers[name])}


SAID_OTHERWISE: Final[list[Any]] = [positive_data_acceptance]
"""What this file checks by itself, knowing which faults no schema can tell."""

REFUSED: Final[list[Any]] = [negative_data_rejection]


def told_by_item(response: Any) -> bool:
    """Whether bad data was refused in a way the generator's check does not know: too many events, or one of some."""
    refused: bool = response.status_code == 413 or (response.status_code == 207 and response.json()["rejected"] > 0)
    return refused


def lost_on_the_way(case: schemathesis.Case[Any], response: Any) -> bool:
    """Whether bad data was never sent: an unknown field of a query whose value is written as nothing (`[[]]`)."""
    sent = dict(parse_qsl(urlsplit(response.request.url).query, keep_blank_values=True))
    return not set(case.query or {}) <= set(sent)


UNTRIED: Final = (
    builder.InvalidHeadersExampleMark,
    builder.InvalidRegexMark,
    builder.MissingPathParameters,
    builder.NonSerializableMark,
    builder.UnsatisfiableExampleMark,
    builder.UnserializablePayloadMark,
)
"""What the generator hangs on a test of which it had to leave something out."""


@schemathesis.serializer("application/x-ndjson")
def in_lines(_: Any, value: Any) -> bytes:
    """One JSON text a line; what is no list is a line of its own."""
    return b"\n".join(json.dumps(entry).encode() for entry in (value if isinstance(value, list) else [value]))


def signed(case: schemathesis.Case[Any], base_url: str) -> dict[str, str]:
    """What Stripe would sign the bytes with that the case will send, where it is told of an event at Stripe."""
    if "Stripe-Signature" not in case.operation.definition.raw.get("description", ""):
        return {}
    sent: Any = Request(**case.as_transport_kwargs(base_url=base_url)).prepare().body or b""
    return header(sent.encode() if isinstance(sent, str) else sent)


def goes_on(case: schemathesis.Case[Any]) -> bool:
    """Whether a stream would be sent, for as long as was drawn."""
    try:
        return 0 <= float((case.query or {}).get("for_s", 0)) <= SECONDS_MAX
    except (TypeError, ValueError):
        return False


def name_what_is_there(names: dict[str, Any], fuzzed: Running) -> None:
    """Put ids of things that exist into a path, for some of them every other time."""
    if "org_id" in names and every_other("org_id"):
        names["org_id"] = KNOWN
    if "event_id" in names:
        names["event_id"] = EVENT
    if "plan" in names and every_other("plan"):
        names["plan"] = "professional"
    if "key_id" in names and every_other("key_id"):
        made = fuzzed.call("POST", "/v1/keys", token(KNOWN, ADMIN), json={"name": "fuzzed", "scopes": ["check"]})
        names["key_id"] = made.json()["key_id"]
    if "grant_id" in names and every_other("grant_id"):
        names["org_id"] = KNOWN
        asked = {"amount": 5, "reason": "fuzzed"}
        names["grant_id"] = fuzzed.call("POST", GRANTS, token(None, ADMIN), json=asked).json()["id"]
    if "window" in names and every_other("window"):
        names["window"] = one_dead(fuzzed)
    for parameter, path, told in HOLDS:
        if parameter in names and every_other(parameter):
            asked = {"feature": "scans", "quantity": 5, "ttl_s": 60}
            made = fuzzed.call("POST", path, token(KNOWN, ADMIN), json=asked)
            names[parameter] = made.json().get(told, "refused")


def name_who_may_end(case: schemathesis.Case[Any], fuzzed: Running) -> None:
    """Put an organisation of its own into the path of an erasure, as the others need the known one alive."""
    ends = (case.operation.path, case.operation.method.upper()) in ENDS
    if ends and case.path_parameters.get("org_id") == KNOWN:
        case.path_parameters["org_id"] = name = f"ends-{next(turns['ends'])}"
        fuzzed.track(org_id=name, feature="scans")
        if case.operation.method.upper() == "GET":
            asked = fuzzed.call("DELETE", f"/v1/orgs/{name}", token(None, ADMIN), params={"reason": "fuzzed"})
            assert asked.status_code == 202, asked.text


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_the_generator_thinks_of_surprises(
    operation: str, described: Any, fuzzed: Running, sells: Till, line: Session, tally: Tally
) -> None:
    """The cases are made when their turn comes: that takes seconds, and every process that shares the tests collects
    all of them.
    """
    method, _, path = operation.partition(" ")
    asked = described[path][method]
    config = HypothesisTestConfig(
        project=described.config,
        modes=[mode for mode in HypothesisTestMode if mode is not HypothesisTestMode.COVERAGE or operation in WALKED],
        settings=described.config.get_hypothesis_settings(operation=asked, phase="fuzzing"),
    )
    generated = create_test(operation=asked, test_func=surprises_nobody, config=config)
    generated(fuzzed=fuzzed, sells=sells, line=line, tally=tally)
    assert not [mark for mark in UNTRIED if mark.is_set(generated)]


@settings(max_examples=EXAMPLES)
def surprises_nobody(case: schemathesis.Case[Any], fuzzed: Running, sells: Till, line: Session, tally: Tally) -> None:
    wanted = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if wanted:
        name_what_is_there(case.path_parameters, fuzzed)
        if re.search("portal|checkout|subscription", case.operation.path):
            buys = re.search("checkout|create", case.operation.path)
            subscribed(fuzzed, KNOWN, status="canceled" if buys else "active")
        if case.operation.path in {"/billing/confirm-payment", "/billing/refund"} and every_other(case.operation.label):
            case.body = bought(fuzzed, sells, case.body)
        if case.operation.path.endswith("/void") and every_other(case.operation.label):
            case.path_parameters["event_id"], case.body = voidable(fuzzed)
    name_who_may_end(case, fuzzed)
    if (
        case.formatted_path != case.operation.path
        and f"{case.operation.method.upper()} {case.formatted_path}" in OPERATIONS
    ):
        return  # a reserved word in place of an id makes it another operation, which has its own turn
    if case.operation.path == LIVE and goes_on(case):
        case.query = {**(case.query or {}), "for_s": 0}  # a stream would go on for as long as was drawn
    headers = {"Authorization": f"Bearer {token(KNOWN, ADMIN)}"}
    base_url = f"http://127.0.0.1:{fuzzed.port}"
    response = case.call(base_url=base_url, headers=headers | signed(case, base_url), session=line)
    if response.status_code == 503 and response.json()["code"] == "usage-settling":
        return  # this Stripe adds nothing up: who has overage ends with the period alone
    accepted = told_by_item(response) or lost_on_the_way(case, response)
    case.validate_response(response, headers=headers, excluded_checks=[*SAID_OTHERWISE, *(REFUSED if accepted else [])])
    tally[case.operation.label][response.status_code] += 1
    assert "x-request-id" in response.headers
    if wanted and response.status_code in {400, 413, 415, 422}:
        told = response.json()
        if told["code"] in SEMANTIC:
            return
        assert response.status_code == 422, told
        assert told["errors"], told
        assert {fault["code"] for fault in told["errors"]} <= SEMANTIC | spoilt(case.headers), told
