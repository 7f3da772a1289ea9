"""A CloudEvent in binary mode: its attributes are `ce-` headers, the body is its data (HTTP binding 1.0.2, 3.1)."""

import re
from collections.abc import Iterable
from typing import Final

from metering.api.bodies import Faults, fault, invalid

DATA_TYPE: Final = "datacontenttype"

_PREFIX: Final = b"ce-"
_REQUIRED: Final = frozenset({b"ce-specversion", b"ce-id", b"ce-source", b"ce-type"})
_NO_HEADER: Final = frozenset({"data", "data_base64", DATA_TYPE})
"""Members of the JSON format that are no attributes, or stand in a header of another name."""

_octet = re.compile(rb"%([0-9A-Fa-f]{2})")
_escape = re.compile(rb"\\(.)")

Pairs = Iterable[tuple[bytes, bytes]]


def is_binary(headers: Pairs) -> bool:
    """Whether any attribute that every CloudEvent has is among the headers. Names are in lower case."""
    return any(name in _REQUIRED for name, _ in headers)


def attributes_of(headers: Pairs) -> dict[str, str]:
    """The attributes as the JSON format names them. Raises Invalid with all that cannot be read, or stand twice."""
    found: dict[str, str] = {}
    faults: Faults = []
    for name, value in headers:
        attribute = name.removeprefix(_PREFIX).decode("latin-1")
        if name == b"content-type":
            found[DATA_TYPE] = value.decode("latin-1")
        elif not name.startswith(_PREFIX):
            continue
        elif attribute in _NO_HEADER:
            faults.append(fault(f"/{attribute}", "unknown-field", f"there is no header ce-{attribute}"))
        elif attribute in found:
            faults.append(fault(f"/{attribute}", "repeated", f"the header ce-{attribute} stands twice"))
        else:
            try:
                found[attribute] = decoded(value)
            except ValueError:
                detail = "the value is not percent-encoded UTF-8 in ASCII characters"
                faults.append(fault(f"/{attribute}", "encoding", detail))
    if faults:
        raise invalid(faults)
    return found


def decoded(value: bytes) -> str:
    """The text of a header: first out of its quotes, if it has any, then percent-decoded once. Raises ValueError."""
    if not value.isascii():
        raise ValueError
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        value = _escape.sub(rb"\1", value[1:-1])
    return _octet.sub(lambda match: bytes.fromhex(match[1].decode()), value).decode("utf-8")
