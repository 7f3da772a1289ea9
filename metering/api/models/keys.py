"""API keys on the wire."""

from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from metering.api.models.fields import PAGE_MAX, Answer, Moment, OrgId, Request, Text, unset, whole
from metering.store.keys import KEY_ID_PATTERN
from metering.tokens import SCOPES

TTL_MAX_S: Final = 10 * 366 * 86_400
"""Ten years: a key that is to hold longer is one that does not expire."""

KEYS_CURSOR_PATTERN: Final = rf"{KEY_ID_PATTERN[:-1]}\.(?:[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}})?$"


def _once(scopes: list[str]) -> list[str]:
    if len(set(scopes)) != len(scopes):
        raise PydanticCustomError("repeated", "each scope stands once")
    return scopes


ScopeName: TypeAlias = Literal[
    "usage:write", "usage:read", "check", "billing:read", "billing:write", "refunds", "audit", "keys", "admin"
]
Scopes: TypeAlias = Annotated[
    list[ScopeName],
    Field(min_length=1, max_length=len(SCOPES), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_once),
]


class KeyRequest(Request):
    """A key to be made. Without `expires_at` and `ttl_s` it holds until it is deleted."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["expires_at", "ttl_s"]}})

    name: Text = Field(description="What people know it by.")
    scopes: Scopes = Field(description="What it may do; nothing that its maker may not.")
    org_id: OrgId | None = unset(None, "Whose usage it is about; the caller's organisation when left out.")
    expires_at: Moment | None = unset(None, "When it ends, in the future.")
    ttl_s: Annotated[int, Field(ge=1, le=TTL_MAX_S), BeforeValidator(whole)] | None = unset(
        None, "Seconds until it ends, instead."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if {"expires_at", "ttl_s"} <= self.model_fields_set:
            raise PydanticCustomError("conflict", "give `expires_at` or `ttl_s`, not both")
        return self


class KeysQuery(Request):
    """How to walk the keys."""

    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "Whose keys; the caller's own when left out, for administrators all.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern=KEYS_CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


_TIME: Final[dict[str, Any]] = {"format": "date-time"}


class KeyView(Answer):
    """An API key, without what makes it one."""

    key_id: str = Field(description="Names it; it is part of the key, and no secret.")
    name: str
    mode: Literal["live", "test"]
    org_id: str | None
    scopes: list[str]
    created_at: str = Field(json_schema_extra=_TIME)
    created_by: str
    expires_at: str | None = Field(json_schema_extra=_TIME, description="null: it holds until it is deleted.")
    last_used_at: str | None = Field(json_schema_extra=_TIME, description="To about ten minutes; null: never yet.")


class NewKeyView(KeyView):
    """An API key on the one occasion that it is shown."""

    key: str = Field(description="The key: `Authorization: Bearer <key>`. It cannot be read again.")


class KeyPage(Answer):
    """One page of keys, in no promised order."""

    data: list[KeyView]
    next_cursor: str | None


class DenyRequest(Request):
    """Tokens to be refused from now on."""

    jti: Text = Field(description="The `jti` of the tokens.")
    expires_at: Moment | None = unset(
        None, "The tokens' `exp`: the denial is dropped after it. Left out: it is kept for ever."
    )


class Denial(Answer):
    """Tokens that are refused."""

    jti: str
    expires_at: str | None = Field(json_schema_extra=_TIME, description="null: for ever.")
