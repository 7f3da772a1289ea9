"""Numbers of credits on the wire."""

from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field

from metering.api.models.fields import whole

CREDITS_MAX: Final = 10**12

Credits: TypeAlias = Annotated[int, Field(ge=1, le=CREDITS_MAX), BeforeValidator(whole)]
