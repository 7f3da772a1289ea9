"""Settings as people see them: values with secrets masked, and what is wrong with one, in words."""

from collections.abc import Mapping

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from metering.address import masked_url
from metering.setting_sources import Fault, Found


def shown(name: str, value: object) -> str:
    """A value as people may see it."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return masked_url(secret) if name == "redis_url" else f"**** ({len(secret.encode())} bytes)"
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def fault_of(fields: Mapping[str, FieldInfo], found: Found, place: tuple[int | str, ...], reason: str) -> Fault:
    """One fault of validation, said for people: the cure names what the setting takes."""
    name = str(place[0])
    field = fields[name]
    extra = field.json_schema_extra
    takes = extra["takes"] if isinstance(extra, dict) else ""
    default = shown(name, field.default)
    cure = f"Set {name.upper()} to {takes}" + (f", or leave it out for {default}." if default else ", or leave it out.")
    secret = "SecretStr" in repr(field.annotation) or isinstance(field.default, SecretStr)
    text = str(found.values.get(name, ""))
    told = masked_url(text) if name == "redis_url" else "****" if secret else text
    return Fault(
        name.upper(),
        told,
        reason.removeprefix("Value error, ").replace("Input should", "it should"),
        cure,
        found.sources.get(name, ""),
    )
