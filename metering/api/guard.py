"""What a caller may do, in one place: scopes, and which organisations exist for them."""

from typing import Final

import structlog

from metering.api.bodies import fault, invalid
from metering.auth import Caller
from metering.errors import Forbidden, OrgNotFound
from metering.names import RESERVED, is_org_id

log = structlog.get_logger(__name__)

_CHALLENGE: Final = 'Bearer error="insufficient_scope", scope="{scope}"'


def require_scope(caller: Caller, scope: str) -> None:
    """Raises Forbidden where the caller lacks `scope`."""
    if not caller.may(scope):
        raise Forbidden(
            f"the scope {scope} is needed", headers={"WWW-Authenticate": _CHALLENGE.format(scope=scope)}, scope=scope
        )


def visible(caller: Caller, org_id: str | None) -> str:
    """The organisation a call is about: the one it names, else the token's.

    Raises Invalid where none is named or the name cannot be one; OrgNotFound, the same as for an unknown
    organisation, where the caller may not know of it.
    """
    asked = org_id if org_id is not None else caller.org_id
    if asked is None:
        raise invalid([fault("/org_id", "missing", "the token names no organisation, so the call must")])
    if not is_org_id(asked):
        raise invalid([fault("/org_id", "reserved" if asked in RESERVED else "org-id", "not an organisation id")])
    if not caller.sees(asked):
        tell_foreign(caller, asked)
        raise OrgNotFound
    return asked


def tell_foreign(caller: Caller, asked: str, **more: str) -> None:
    """Log that a caller asked for an organisation it may not know of; `more` goes into the line."""
    log.warning("foreign organisation", subject=caller.subject, org_id=caller.org_id, asked=asked, **more)
