"""API keys, and tokens that are refused before they expire."""

from typing import Final

from metering.api import keys
from metering.api.models.keys import Denial, DenyRequest, KeyPage, KeyRequest, KeysQuery, NewKeyView
from metering.api.route import Route
from metering.auth import ADMIN, KEYS
from metering.errors import Forbidden, Invalid, KeyNotFound, LedgerFull, OrgCorrupt, OrgNotFound, TooManyKeys

_KEY: Final = {
    "key_id": "006d0f5c9a7be41c3d8",
    "name": "collector",
    "mode": "live",
    "org_id": "org-123",
    "scopes": ["usage:write"],
    "created_at": "2024-01-15T10:30:00Z",
    "created_by": "user-7",
    "expires_at": None,
    "last_used_at": None,
}
_TEXT: Final = f"mk_live_{_KEY['key_id']}_{'0' * 64}"

_WRITES: Final = (LedgerFull, OrgCorrupt)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/keys", "Make an API key", KEYS, "credentials", keys.create_key, {201: NewKeyView},
        request=KeyRequest, problems=(Invalid, Forbidden, OrgNotFound, TooManyKeys, *_WRITES), secret=True,
        example={"name": "collector", "org_id": "org-123", "scopes": ["usage:write"], "ttl_s": 7_776_000},
        shows={**_KEY, "key": _TEXT},
        about="The key is shown here and never again. It is sent as a token is: `Authorization: Bearer mk_…`.",
    ),
    Route(
        "GET", "/v1/keys", "API keys", KEYS, "credentials", keys.list_keys, {200: KeyPage},
        query=KeysQuery, problems=(Invalid, OrgNotFound, OrgCorrupt), shows={"data": [_KEY], "next_cursor": None},
    ),
    Route(
        "DELETE", "/v1/keys/{key_id}", "End an API key", KEYS, "credentials", keys.delete_key, {204: ""},
        problems=(KeyNotFound, *_WRITES),
        about="Every worker refuses the key within two seconds. Deleting it again is answered the same for 30 days.",
    ),
    Route(
        "POST", "/v1/tokens/deny", "Refuse a token", ADMIN, "credentials", keys.deny_token, {200: Denial},
        request=DenyRequest, problems=(Invalid, *_WRITES),
        example={"jti": "b1946ac92492d234"}, shows={"jti": "b1946ac92492d234", "expires_at": None},
        about="Every worker refuses tokens with this `jti` within two seconds. Of two denials the later end counts.",
    ),
)  # fmt: skip
