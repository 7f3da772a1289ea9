"""Every setting of the service, read in this one place: environment, then `.env`, then secret files.

Building `Settings(...)` reads nothing; `Settings.load()` reads the three sources and reports every fault at
once. An empty value counts as not set.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from metering import setting_sources
from metering.address import (
    SCHEMES,
    STORE_URL_DEFAULT,
    is_loopback,
    store_address,
)
from metering.catalogues import SHIPPED, text_of
from metering.clock import MS_PER_S
from metering.moments import span_s
from metering.setting_faults import fault_of, shown
from metering.setting_kinds import (
    KEYS_TAKEN,
    EncryptionKeys,
    HttpUrl,
    KeysUrl,
    PowerOfTwo,
    Retention,
    SigningSecrets,
    StoreUrl,
    StripeMode,
    Text,
    mode_of,
    parts_of,
    ring_of,
    starts,
)
from metering.setting_sources import Fault, secret_at
from metering.setting_watching import WatchingSettings, setting

JWT_SECRET_DEFAULT: Final = "changeme-in-production"  # noqa: S105 - the documented default, refused at start
JWT_SECRET_BYTES_MIN: Final = 32
"""RFC 7518 3.2: an HS256 key is at least as long as its hash."""

JWT_SECRET_FILE: Final = "jwt-secret"  # noqa: S105 - a file name

_TEST_KEYS: Final = ("sk_test_", "rk_test_", "sk_sandbox_", "rk_sandbox_")
"""First letters of keys of Stripe that move no real money; every other key is taken for one that does."""

_REACHED: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
"""Where to reach a service that listens everywhere."""


class SettingsError(Exception):
    """Settings that cannot be used: `faults` holds all of them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{fault.name}: {fault.reason}" for fault in faults))
        self.faults = faults


class StoreKind(StrEnum):
    """Whose store it is. `metering serve` tells its workers; plain uvicorn always meets an external one."""

    EXTERNAL = "external"
    EMBEDDED = "embedded"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `metering config check`: the value is masked, `source` is env, .env, file or default."""

    name: str
    value: str
    source: str
    about: str


class Settings(WatchingSettings):
    """Every setting. Field names are the environment's names in lower case."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_ignore_empty=True, str_strip_whitespace=True, hide_input_in_errors=True
    )
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    host: Text = setting("127.0.0.1", "address to listen on", "a host name or address")
    port: int = setting(8005, "port to listen on; 0 takes any free one", "a port, 0 to 65535", ge=0, le=65535)
    workers: int = setting(1, "processes that answer requests", "a number, 1 to 64", ge=1, le=64)
    data_dir: Path = setting(Path("var"), "folder of the embedded store and the generated secret", "a path")

    redis_url: StoreUrl | None = setting(
        None, "the store; unset: `metering serve` starts its own", f"a URL with {', '.join(SCHEMES)}"
    )
    redis_db: int = setting(2, "database, unless the URL names one", "a number, 0 to 16383", ge=0, le=16383)
    partitions: Annotated[int, PowerOfTwo] = setting(
        64, "partitions of the data set, fixed for its life", "a power of two, 1 to 4096", ge=1, le=4096
    )
    store_span: Literal["node", "partition"] = setting(
        "node", "what one call to the store may hold: all of a node, or one partition (cluster)", "node or partition"
    )
    store_durability: Literal["attested"] | None = setting(
        None, "the operator vouches for a store whose CONFIG GET is barred", "attested"
    )
    store_kind: StoreKind = setting(
        StoreKind.EXTERNAL, "set by `metering serve` for its workers", "external, embedded or ephemeral"
    )
    allow_lossy_ledger: bool = setting(
        False, "run on a store that can lose acknowledged usage; shown everywhere", "true or false"
    )
    encryption_keys: EncryptionKeys | None = setting(
        None, "keys of sensitive values in the store, the present one first; unset: they rest as they are", KEYS_TAKEN
    )
    pending_max: int = setting(
        2_000, "events a worker holds for the store before it sheds load", "a number, 1 to 1000000", ge=1, le=1_000_000
    )
    queue_max: int = setting(
        10_000, "events accepted with ack=async that a partition holds", "a number, 1 to 1000000", ge=1, le=1_000_000
    )

    events_max: int = setting(
        1_000, "events one request may bring, never more than PENDING_MAX", "a number, 1 to 10000", ge=1, le=10_000
    )

    jwt_secret: SecretStr = setting(
        SecretStr(JWT_SECRET_DEFAULT),
        "key of the tokens (HS256); unset: `metering serve` keeps a generated one in DATA_DIR",
        f"a secret of {JWT_SECRET_BYTES_MIN} bytes or more",
    )
    jwt_public_key_file: Path | None = setting(
        None, "public keys of tokens signed with RS256, ES256 or EdDSA (PEM, one or more)", "a path"
    )
    jwt_jwks_url: KeysUrl | None = setting(
        None, "where the issuer publishes such keys (JWKS)", "an https URL, or http on loopback"
    )
    jwt_audience: Text | None = setting(None, "`aud` every token must carry", "a name")
    jwt_issuer: Text | None = setting(None, "`iss` every token must carry", "a name")

    plans_file: Path | None = setting(
        None, "catalogue of plans (TOML), or the name of one that is shipped; unset: scorpius", "a path or a name"
    )
    auto_create_orgs: bool = setting(True, "an unknown organisation starts on the default plan", "true or false")
    late_policy: Literal["current", "original", "reject"] = setting(
        "current",
        "events of an earlier period: counted now, in the period that closed last if theirs, or refused",
        "current, original or reject",
    )
    minute_history_hours: int = setting(
        0, "hours of usage history kept by minute; 0 keeps none", "a number, 0 to 48", ge=0, le=48
    )
    event_retention: Retention = setting(
        "0", "how long raw events are kept; 0 keeps none", "0, or a time such as 24h or 7d, at most 400d"
    )
    history_days: int = setting(770, "days of usage history kept", "a number, 62 to 3660", ge=62, le=3660)

    idempotency_hours: int = setting(
        24, "hours that the answer to a request with an Idempotency-Key is kept", "a number, 1 to 168", ge=1, le=168
    )

    stripe_secret_key: Annotated[SecretStr, starts("sk_", "rk_")] | None = setting(
        None, "Stripe's secret key", "a key that begins with sk_ or rk_"
    )
    stripe_webhook_secret: SigningSecrets | None = setting(
        None, "secrets that sign Stripe's webhooks", "secrets that begin with whsec_, commas between them"
    )
    stripe_api_base: HttpUrl | None = setting(
        None, "where Stripe is reached; unset: Stripe itself. `metering serve --sandbox` names its own", "an http URL"
    )
    stripe_sandbox_port: int = setting(
        0, "port of the Stripe that `metering serve --sandbox` starts; 0: any", "a port, 0 to 65535", ge=0, le=65535
    )
    stripe_shadow_key: Annotated[SecretStr, starts("sk_test_", "rk_test_", "sk_sandbox_")] | None = setting(
        None, "key of a second, test account that is told all overage as well", "a test key of Stripe"
    )
    stripe_shadow_api_base: HttpUrl | None = setting(
        None, "where the second account is reached; unset: Stripe itself", "an http URL"
    )
    stripe_rate: int = setting(
        20, "calls a second to Stripe, all workers together", "a number, 1 to 1000", ge=1, le=1000
    )
    stripe_automatic_tax: bool = setting(
        False, "Stripe works out the tax of checkouts and of the subscriptions that they make", "true or false"
    )
    overage_push_s: float = setting(
        60.0, "seconds between two looks at overage to push", "a number, 0.1 to 3600", ge=0.1, le=3600
    )
    overage_window_days: int = setting(
        90, "days a settled window of overage of a final period is kept", "a number, 40 to 3660", ge=40, le=3660
    )
    late_usage: Literal["invoice_item", "write_off"] = setting(
        "invoice_item",
        "overage found after its invoice was finalised: on the next one, or let go",
        "invoice_item or write_off",
    )
    grace_days: int = setting(
        7, "days from a failed payment until it counts as overdue", "a number, 0 to 90", ge=0, le=90
    )
    overdue_action: Literal["flag", "downgrade"] = setting(
        "flag",
        "what becomes of an organisation that is overdue: shown, or put on the default plan",
        "flag or downgrade",
    )
    test_clock: bool = setting(
        False, "the data set has a clock that `metering clock advance` moves; never with a live key", "true or false"
    )
    stripe_publishable_key: Annotated[str, starts("pk_")] | None = setting(
        None, "Stripe's publishable key, for the pages", "a key that begins with pk_"
    )
    stripe_price_basic: Text | None = setting(None, "Stripe price of the basic plan", "a price id")
    stripe_price_pro: Text | None = setting(None, "Stripe price of the pro plan", "a price id")
    stripe_price_enterprise: Text | None = setting(None, "Stripe price of the enterprise plan", "a price id")

    frontend_url: HttpUrl = setting("http://localhost:3000", "where checkout returns to", "an http URL")
    react_app_api_url: HttpUrl = setting("http://localhost:4000", "the API as the pages see it", "an http URL")
    vite_stripe_price_id_starter: Text | None = setting(None, "price shown by the pages", "a price id")
    vite_stripe_price_id_professional: Text | None = setting(None, "price shown by the pages", "a price id")
    vite_stripe_price_id_enterprise: Text | None = setting(None, "price shown by the pages", "a price id")

    metrics_token: SecretStr | None = setting(
        None, "what a scraper of /metrics must send; unset: open on loopback only", "a secret"
    )
    metrics_top_orgs: int = setting(
        20, "organisations with a series of their own", "a number, 0 to 1000", ge=0, le=1000
    )
    metrics_dir: Path | None = setting(
        None, "folder the workers share figures in; `metering serve` makes one", "a path"
    )

    debug: bool = setting(False, "development: weak secrets and a bare local store are let in", "true or false")

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """The constructor reads nothing by itself: tests and parents say exactly what they mean."""
        return (sources["init_settings"],) if "init_settings" in sources else ()

    @classmethod
    def load(
        cls,
        env_file: Path = Path(".env"),
        secrets_dir: Path | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Self:
        """The settings in force here; `options` (the command line's, by field name) come before every source.

        Raises SettingsError with every fault.
        """
        folder = secrets_dir or setting_sources.secrets_folder()
        found = setting_sources.find(cls, env_file, folder, options or {})
        faults = [*found.faults]
        try:
            settings = cls.model_validate(found.values)
        except ValidationError as error:
            faults += (fault_of(cls.model_fields, found, e["loc"], e["msg"]) for e in error.errors(include_url=False))
            raise SettingsError(tuple(faults)) from None
        if faults:
            raise SettingsError(tuple(faults))
        return settings.with_sources(found.sources)

    def with_sources(self, sources: Mapping[str, str]) -> Self:
        """The same settings, knowing where each of them came from."""
        self._sources.update(sources)
        return self

    def describe(self) -> list[Row]:
        """Every setting with its value (secrets masked), its source and what it is for."""
        return [
            Row(name.upper(), shown(name, getattr(self, name)), self._source(name), str(field.description))
            for name, field in type(self).model_fields.items()
        ]

    def _source(self, name: str) -> str:
        """Where a value came from; `given` when the program itself set it."""
        return self._sources.get(name, "given" if name in self.model_fields_set else "default")

    def store_url(self) -> str:
        """The store's URL for the driver, password included, its database settled (the URL's wins)."""
        url = self.redis_url.get_secret_value() if self.redis_url else STORE_URL_DEFAULT
        return store_address(url, database=self.redis_db).url

    def metrics_secret(self) -> str | None:
        """What a scraper has to show, if anything."""
        return None if self.metrics_token is None else self.metrics_token.get_secret_value()

    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that Stripe may sign with; none: the route for its events is not there."""
        return parts_of(self.stripe_webhook_secret)

    def encryption_ring(self) -> tuple[tuple[str, bytes], ...]:
        """The keys of sensitive values with their ids, the present one first; none: such values rest as they are."""
        return () if self.encryption_keys is None else ring_of(self.encryption_keys.get_secret_value())

    def stripe_livemode(self) -> bool | None:
        """Whether Stripe's key moves real money; None without a key."""
        key = self.stripe_secret_key
        return None if key is None else not key.get_secret_value().startswith(_TEST_KEYS)

    def stripe_mode(self) -> StripeMode:
        """Which Stripe the service is paid through."""
        return mode_of(self.stripe_secret_key, livemode=self.stripe_livemode())

    def event_retention_ms(self) -> int:
        """How long raw events are kept; 0: none are."""
        return span_s(self.event_retention) * MS_PER_S

    def service_url(self) -> str:
        """Where a service with these settings is reached from this machine."""
        host = _REACHED.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def bound_to_loopback(self) -> bool:
        """Whether the service is known to listen on a loopback address.

        Only `metering serve` knows, and tells its workers STORE_KIND together with the address it bound. Under
        plain uvicorn HOST says nothing: uvicorn listens where its own options say.
        """
        if "store_kind" not in self.model_fields_set:
            return False
        return is_loopback(self.host)

    def plans_text(self) -> tuple[str, str]:
        """The catalogue's text and the name of its file. Raises SettingsError when it cannot be read."""
        try:
            return text_of(self.plans_file)
        except (OSError, UnicodeDecodeError) as error:
            cure = f"Set PLANS_FILE to a readable TOML file in UTF-8, or to a shipped one: {', '.join(SHIPPED)}."
            fault = Fault("PLANS_FILE", str(self.plans_file), f"cannot be read ({error})", cure)
            raise SettingsError((fault,)) from error

    def with_secret_kept(self) -> Self:
        """These settings, with the secret kept in DATA_DIR where JWT_SECRET was not set at all.

        The file is made on first use. Raises SettingsError when it cannot be made, read or trusted.
        """
        path = self.secret_path()
        if path is None:
            return self
        secret = secret_at(path, bytes_min=JWT_SECRET_BYTES_MIN)
        if isinstance(secret, Fault):
            raise SettingsError((secret,))
        kept = self.model_copy(update={"jwt_secret": SecretStr(secret)})
        return kept.with_sources({**self._sources, "jwt_secret": f"generated, kept in {path}"})

    def hs256_secret(self) -> str | None:
        """The secret that tokens may be signed with; None where public keys alone are configured.

        The documented default counts as no secret then. `metering serve` always has one: set, or kept in DATA_DIR.
        """
        by_keys = self.jwt_public_key_file is not None or self.jwt_jwks_url is not None
        return None if by_keys and "jwt_secret" not in self.model_fields_set else self.jwt_secret.get_secret_value()

    def secret_path(self) -> Path | None:
        """The file of the generated secret, made or not; None where JWT_SECRET was set."""
        return None if "jwt_secret" in self.model_fields_set else self.data_dir / JWT_SECRET_FILE

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of the present process with `changes` (setting names in lower case) for a child of ours."""
        return dict(os.environ) | {name.upper(): value for name, value in changes.items()}
