"""What DATA_DIR keeps of the Stripe stand-in that `metering serve --sandbox` starts: its secrets, and where it answers.

DATA_DIR/stripe-sandbox-key            the only key it takes (mode 0600)
DATA_DIR/stripe-sandbox-webhook-secrets what it signs its webhooks with, as the set-up was told (mode 0600)
DATA_DIR/stripe-sandbox.sqlite         what it knows
DATA_DIR/stripe-sandbox.json           where it answers now, for commands that run beside the service
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr

from metering.children import alive
from metering.setting_kinds import SANDBOX_KEY
from metering.setting_sources import Fault, secret_at
from metering.settings import Settings, SettingsError

OVERAGE_PUSH_S: Final = 2.0
"""Somebody watches, and nothing is sent out: overage goes out at once."""

_SECRET_BYTES_MIN: Final = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stand-in of one DATA_DIR keeps what it has."""

    data_dir: Path

    @property
    def note(self) -> Path:
        """Says where it answers, as long as it runs."""
        return self.data_dir / "stripe-sandbox.json"

    def key(self) -> str:
        """Its key, made at the first start. Raises SettingsError when it cannot be made, read or trusted."""
        path = self.data_dir / "stripe-sandbox-key"
        secret = secret_at(path, bytes_min=_SECRET_BYTES_MIN, name="STRIPE_SECRET_KEY", prefix=SANDBOX_KEY)
        if isinstance(secret, Fault):
            raise SettingsError((secret,))
        return secret

    @property
    def secrets(self) -> Path:
        """Holds what it signs with, one secret a line: `metering stripe setup` adds those that it is told."""
        return self.data_dir / "stripe-sandbox-webhook-secrets"

    def webhook_secrets(self) -> str:
        """What it signs with, commas between them; empty before the set-up."""
        try:
            return ",".join(self.secrets.read_text(encoding="ascii").split())
        except FileNotFoundError:
            return ""

    def settings(self, url: str) -> dict[str, str]:
        """What a service is told that is paid through the stand-in at `url`: settings by name, in lower case."""
        return {
            "stripe_secret_key": self.key(),
            "stripe_api_base": url,
            "stripe_webhook_secret": self.webhook_secrets(),
            "test_clock": "true",
            "overage_push_s": str(OVERAGE_PUSH_S),
        }


@dataclass(frozen=True, slots=True)
class Answering:
    """A stand-in that runs: the id of the process that started it, and its address."""

    parent: int
    url: str

    def write(self, place: Place) -> None:
        """Leave a note of it; readers see the old one or the new one, never half of it."""
        aside = place.note.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        aside.replace(place.note)

    @classmethod
    def read(cls, place: Place) -> Self | None:
        """The one that runs; None where the note is of one that has ended, or is none of ours."""
        try:
            found = cls(**json.loads(place.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        known = isinstance(found.parent, int) and isinstance(found.url, str)
        return found if known and alive(found.parent) else None


def beside_sandbox(settings: Settings) -> Settings:
    """The settings for a command that runs beside the service: with the stand-in's, where the service runs with one.

    A key for Stripe that is set here wins.
    """
    place = Place(settings.data_dir.absolute())
    answering = Answering.read(place)
    if settings.stripe_secret_key is not None or answering is None:
        return settings
    told = place.settings(answering.url)
    update = {
        "stripe_secret_key": SecretStr(told["stripe_secret_key"]),
        "stripe_webhook_secret": SecretStr(told["stripe_webhook_secret"]) if told["stripe_webhook_secret"] else None,
        "stripe_api_base": answering.url,
        "test_clock": True,
    }
    sources = dict.fromkeys(update, "the sandbox that runs in DATA_DIR")
    return settings.model_copy(update=update).with_sources(sources)
