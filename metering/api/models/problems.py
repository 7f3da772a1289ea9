"""Refusals on the wire (RFC 9457)."""

from pydantic import BaseModel, ConfigDict, Field

from metering.api.models.fields import Answer


class FaultView(Answer):
    """One fault of a request: `pointer` (RFC 6901) names its place in the body."""

    pointer: str
    code: str
    detail: str


class ProblemView(BaseModel):
    """RFC 9457. `code` is stable; further members depend on it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    title: str
    status: int
    detail: str
    code: str
    cure: str
    retryable: bool = Field(description="Whether the same request may succeed after Retry-After seconds.")
    request_id: str
    errors: list[FaultView]
