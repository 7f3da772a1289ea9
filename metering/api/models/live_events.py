"""What to watch of raw events."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from metering.api.models.fields import FeatureName, OrgId, Request, unset

SECONDS_MAX: Final = 3_600


class LiveEventsQuery(Request):
    """Which raw events to watch, and for how long."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "Only of this organisation; of all when left out.")
    feature: FeatureName | None = unset(None, "Only of this feature.")
    since_s: Annotated[int, Field(ge=0, le=SECONDS_MAX)] = Field(0, description="Begin so many seconds ago.")
    for_s: Annotated[int, Field(ge=0, le=SECONDS_MAX)] = Field(
        300, description="End after so many seconds; 0: with what is there."
    )
