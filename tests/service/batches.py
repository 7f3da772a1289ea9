"""The same events in every way that POST /v1/events takes them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx2

from metering.auth import ADMIN
from tests.service.running import Running, token

Event = Mapping[str, Any]
Encoded = tuple[dict[str, str], bytes]

CLOUD: Final = "application/cloudevents+json"
CLOUD_BATCH: Final = "application/cloudevents-batch+json"
LINES: Final = "application/x-ndjson"
NATIVE: Final = "application/json"

_OWN: Final = {"org_id": "subject", "event_id": "id", "timestamp": "time", "feature": "type"}


def cloud(event: Event) -> dict[str, Any]:
    """A native event as a CloudEvent; what it has no id or source for gets one."""
    found: dict[str, Any] = {"specversion": "1.0", "id": "e", "source": "tests"}
    data = dict(event.get("metadata") or {})
    for name, value in event.items():
        if name == "feature":
            found["type"] = f"usage.{value}"
        elif name == "quantity":
            data["quantity"] = value
        elif name != "metadata":
            found[_OWN.get(name, name)] = value
    return found | ({"data": data} if data else {})


def array(events: Sequence[Event]) -> Encoded:
    """A JSON array."""
    return {"Content-Type": NATIVE}, json.dumps(events).encode()


def named(events: Sequence[Event]) -> Encoded:
    """A JSON object with the array in it."""
    return {"Content-Type": f"{NATIVE}; charset=utf-8"}, json.dumps({"events": events}).encode()


def lines(events: Sequence[Event]) -> Encoded:
    """One event a line, of both kinds of line ends, with blank ones between."""
    return {"Content-Type": f"{LINES};charset=UTF-8"}, b"\r\n \n".join(json.dumps(e).encode() for e in events) + b"\n"


def batch(events: Sequence[Event]) -> Encoded:
    """A batch of CloudEvents."""
    sent = [cloud(event) if isinstance(event, Mapping) else event for event in events]
    return {"Content-Type": f"{CLOUD_BATCH}; charset=UTF-8"}, json.dumps(sent).encode()


def alone(events: Sequence[Event]) -> Encoded:
    """One native event."""
    return {"Content-Type": NATIVE}, json.dumps(events[0]).encode()


def structured(events: Sequence[Event]) -> Encoded:
    """One CloudEvent as a whole."""
    return {"Content-Type": CLOUD}, json.dumps(cloud(events[0])).encode()


def binary(events: Sequence[Event]) -> Encoded:
    """One CloudEvent with its attributes in headers, its data in the body."""
    found = cloud(events[0])
    data = found.pop("data", None)
    headers = {f"ce-{name}": str(value) for name, value in found.items()}
    return headers | {"Content-Type": NATIVE}, b"" if data is None else json.dumps(data).encode()


MANY: Final[dict[str, Callable[[Sequence[Event]], Encoded]]] = {
    "array": array,
    "events": named,
    "lines": lines,
    "cloudevents": batch,
}
ONE: Final[dict[str, Callable[[Sequence[Event]], Encoded]]] = {
    "alone": alone,
    "structured": structured,
    "binary": binary,
}


def send(
    service: Running, encoded: Encoded, bearer: str | None = None, path: str = "/v1/events", **params: str
) -> httpx2.Response:
    """POST a body, by default as an administrator without an organisation."""
    headers, content = encoded
    return service.call("POST", path, bearer or token(None, ADMIN), headers=headers, content=content, params=params)


def post(service: Running, *events: Any, bearer: str | None = None, **params: str) -> httpx2.Response:
    """POST events as a JSON array."""
    return send(service, array(events), bearer, **params)


def usage(service: Running, org: str) -> dict[str, int]:
    """What each feature of an organisation stands at; nothing where it does not exist."""
    view = service.call("GET", f"/usage/{org}", token(None, ADMIN))
    return {} if view.status_code == 404 else {n: f["current"] for n, f in view.json()["features"].items()}
