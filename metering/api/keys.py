"""Credentials that the service hands out and takes back: API keys, and tokens that are refused before they expire."""

import re
from typing import Any, Final

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.keys import DenyRequest, KeyRequest, KeysQuery
from metering.api.route import Call, Reply, json_reply
from metering.auth import ADMIN, Caller
from metering.clock import MS_PER_S
from metering.errors import Forbidden, KeyNotFound
from metering.moments import parse_ms, rfc3339
from metering.store.api_key import ApiKey, NewKey
from metering.store.keys import KEY_ID_PATTERN

_key_id: Final = re.compile(KEY_ID_PATTERN[1:-1]).fullmatch


async def create_key(call: Call) -> Reply:
    """Make a key that may do no more than its maker, for an organisation that its maker sees."""
    body, caller = call.sent(KeyRequest), call.caller
    org_id = _org_of(caller, body)
    if lacking := [scope for scope in body.scopes if not caller.may(scope)]:
        raise Forbidden(f"a key may do no more than its maker: {', '.join(lacking)}", scope=lacking[0])
    wanted = NewKey(body.name, org_id, tuple(body.scopes), _end_of(body, call.services.clock.now_ms()))
    key, text = await call.services.api_keys.create(wanted, actor=caller.subject)
    return json_reply({**key_view(key), "key": text}, 201)


def _org_of(caller: Caller, body: KeyRequest) -> str | None:
    """The organisation a key is for. An administrator may make one for administrators, which needs none."""
    named = body.org_id if body.org_id is not None else caller.org_id
    if named is None and caller.may(ADMIN) and ADMIN in body.scopes:
        return None
    return visible(caller, named)


def _end_of(body: KeyRequest, now_ms: int) -> int | None:
    """When the key ends, in ms since the epoch. Raises Invalid for an end that is past."""
    if body.ttl_s is not None:
        return now_ms + body.ttl_s * MS_PER_S
    return _future(body.expires_at, now_ms)


def _future(moment: str | None, now_ms: int) -> int | None:
    """`expires_at` in ms since the epoch. Raises Invalid where it is past."""
    if moment is None:
        return None
    end_ms = parse_ms(moment)
    if end_ms <= now_ms:
        raise invalid([fault("/expires_at", "out-of-range", "lies in the past")])
    return end_ms


async def list_keys(call: Call) -> Reply:
    """One page of an organisation's keys; administrators who name none see all."""
    query = call.asked(KeysQuery)
    everything = query.org_id is None and call.caller.may(ADMIN)
    owner = None if everything else visible(call.caller, query.org_id)
    keys, following = await call.services.api_keys.page(owner, query.cursor, query.limit)
    return json_reply({"data": [key_view(key) for key in keys], "next_cursor": following})


async def delete_key(call: Call) -> Reply:
    """End a key of an organisation that the caller sees. Raises KeyNotFound, the same for all others."""
    key_id, keys = call.params["key_id"], call.services.api_keys
    owner = await keys.owner_of(key_id) if _key_id(key_id) else None
    if owner is None or not call.caller.sees(owner):
        raise KeyNotFound
    await keys.delete(key_id, actor=call.caller.subject)
    return Reply(b"", 204)


def key_view(key: ApiKey) -> dict[str, Any]:
    """A key as the wire shows it: never what it is checked by."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "mode": "live" if key.live else "test",
        "org_id": key.org_id,
        "scopes": list(key.scopes),
        "created_at": rfc3339(key.created_ms),
        "created_by": key.made_by,
        "expires_at": _moment(key.expires_ms),
        "last_used_at": _moment(key.used_ms),
    }


async def deny_token(call: Call) -> Reply:
    """Refuse tokens with an id from now on."""
    body, services = call.sent(DenyRequest), call.services
    until_ms = await services.denials.deny(body.jti, _future(body.expires_at, services.clock.now_ms()))
    return json_reply({"jti": body.jti, "expires_at": _moment(until_ms)})


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
