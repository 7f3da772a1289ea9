"""The start-up gate: what must hold before the first event is taken, in order, each with its cure.

The app refuses to start on what it finds here; `metering doctor` prints the same lines without writing anything.
What may be relaxed: DEBUG lets weak secrets and a store without its own user or memory limit pass,
ALLOW_LOSSY_LEDGER lets a store pass that can lose what it acknowledged. Both are said aloud.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from metering.clock import MS_PER_S, Clock
from metering.settings import JWT_SECRET_BYTES_MIN, JWT_SECRET_DEFAULT, Settings, StoreKind
from metering.store.binaries import VERSION_MIN
from metering.store.connect import StoreError, text_of, texts
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.marker import DataSet, MarkerError, check_catalogue, open_dataset
from metering.store.scripts import NAMES, script
from metering.store.timing import stored_offset

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from plans.catalogue import Catalogue

CLOCKS_APART_MAX_MS: Final = 60_000
"""As the scripts: with clocks further apart nothing is counted, so nothing should start."""

_USER_RULES: Final = "'~{*' +@all -@admin -@dangerous '+config|get' +info +bgrewriteaof '+slowlog|reset'"
"""What the service's user may do, as a shell takes it: a client's commands on this service's keys, and two
questions that the gate asks."""

START_LINE: Final = (
    "docker run -d -p 127.0.0.1:6379:6379 -v metering-store:/data redis:7-alpine redis-server "
    "--appendonly yes --appendfsync always --no-appendfsync-on-rewrite no "
    "--maxmemory 512mb --maxmemory-policy noeviction "
    f"--user default off --user metering on '>PASSWORD' {_USER_RULES}"
)
"""The usual line for a Redis on one's own machine, with all that the gate asks for."""

STORE_URL: Final = "redis://metering:PASSWORD@127.0.0.1:6379"
"""How that store is named."""

_DURABLE: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
"""What the store's configuration must say, so that an acknowledged event is never lost."""

DURABILITY: Final = "durability"
"""The check of what the store does not tell."""

TEST_CLOCK: Final = "test clock"
"""The check of a clock that was moved by hand."""

_US_PER_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the gate. Not ok and `fatal`: the service does not start; not ok alone: it says so."""

    name: str
    ok: bool
    found: str
    cure: str = ""
    fatal: bool = True


class GateRefusedError(Exception):
    """The service must not start. The text holds every failing check with its cure, one a line."""


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate saw. `dataset` is None when it did not come so far; `lossy` is shown in health and metrics."""

    dataset: DataSet | None
    checks: tuple[Check, ...]
    lossy: bool

    @property
    def failures(self) -> tuple[Check, ...]:
        """What keeps the service from starting."""
        return tuple(check for check in self.checks if not check.ok and check.fatal)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """What was let pass."""
        return tuple(check for check in self.checks if not check.ok and not check.fatal)

    def admit(self) -> DataSet:
        """The data set to work on. Raises GateRefusedError with every failure and its cure."""
        if self.failures or self.dataset is None:
            lines = (f"{check.name}: {check.found}. {check.cure}" for check in self.failures)
            raise GateRefusedError("the service does not start:\n" + "\n".join(f"  - {line}" for line in lines))
        return self.dataset


@dataclass(slots=True)
class _Scene:
    """What the checks look at; `config` is None where it may not be read."""

    client: "Redis"
    settings: Settings
    clock: Clock
    kind: StoreKind
    info: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, str] | None = None

    @property
    def relaxed(self) -> bool:
        """Whether a store without a user and a limit of its own may pass with a word."""
        return self.kind is not StoreKind.EXTERNAL or self.settings.debug


async def run_gate(
    client: "Redis",
    settings: Settings,
    clock: Clock,
    *,
    kind: StoreKind,
    catalogue: "Catalogue | None" = None,
    write: bool = True,
) -> GateReport:
    """Run every check that can be run, in order; the data set is opened (made, if new) only after all passed.

    With `write` False nothing is made and `dataset` is None where there is none yet.
    """
    scene = _Scene(client, settings, clock, kind)
    checks = [secret_check(settings), parser_check()]
    dataset: DataSet | None = None
    try:
        checks += await _store_checks(scene)
        if not any(not check.ok and check.fatal for check in checks):
            dataset, found = await _dataset(scene, catalogue, write=write)
            checks += found
    except StoreError as error:
        checks.append(_unreachable(error))
    durable = all(check.ok for check in checks if check.name in (*_DURABLE, DURABILITY))
    return GateReport(dataset, tuple(checks), lossy=kind is StoreKind.EPHEMERAL or not durable)


def secret_check(settings: Settings) -> Check:
    """JWT_SECRET: not the documented default, and as long as its hash. None is needed beside public keys."""
    secret = settings.hs256_secret()
    if secret is None:
        return Check("JWT_SECRET", ok=True, found="not set: tokens signed with HS256 are refused")
    default, length = secret == JWT_SECRET_DEFAULT, len(secret.encode())
    found = "the documented default" if default else f"{length} bytes"
    cure = (
        f"Set JWT_SECRET to {JWT_SECRET_BYTES_MIN} random bytes or more, for example from: "
        "python3 -c 'import secrets; print(secrets.token_hex(32))'. DEBUG=true lets a weak one pass."
    )
    ok = not default and length >= JWT_SECRET_BYTES_MIN
    return Check("JWT_SECRET", ok, found, cure, fatal=not settings.debug)


def parser_check(module: str = "httptools") -> Check:
    """The HTTP parser that refuses smuggled requests; the pure Python one is also five times slower."""
    there = find_spec(module) is not None
    return Check(module, there, "installed" if there else "missing", f"pip install {module}")


async def _store_checks(scene: _Scene) -> list[Check]:
    """Every check of the store itself. An ephemeral one answers few questions and promises nothing."""
    await scene.client.ping()
    if scene.kind is StoreKind.EPHEMERAL:
        return [Check("store", ok=False, found="in memory: data is lost on exit", fatal=False), await _clocks(scene)]
    scene.info = await scene.client.info("server")
    checks = [version_check(scene.info)]
    if not checks[0].ok:
        return checks
    scene.config = await _config(scene)
    checks += durability_checks(scene.config, scene.settings)
    for ask in _ASKED:
        checks.append(await ask(scene))
    return checks


def _unreachable(error: Exception) -> Check:
    """The store cannot be talked to. The driver's text names host and port, never the password."""
    cure = "Start it, or put host, port, user and password in REDIS_URL right."
    return Check("store", ok=False, found=f"no answer ({type(error).__name__}: {error})", cure=cure)


def version_check(info: Mapping[str, object]) -> Check:
    """The server's own name and version; Valkey calls itself Redis 7.2 for old clients' sake."""
    name = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get(f"{name}_version", "0.0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    cure = "Move to Redis 7.0, Valkey 7.2 or newer."
    return Check("store", numbers >= VERSION_MIN, f"{name} {version}", cure)


async def _config(scene: _Scene) -> Mapping[str, str] | None:
    """The settings of the store that matter; None where it does not tell."""
    try:
        raw = await scene.client.config_get(*_DURABLE, "aof-load-truncated", "maxmemory")
    except StoreError:
        return None
    return texts(raw)


def durability_checks(config: Mapping[str, str] | None, settings: Settings) -> list[Check]:
    """Whether an acknowledged event is on disk, and stays, by the store's configuration as far as it tells."""
    config = config or {}
    lossy_allowed = settings.allow_lossy_ledger
    checks = [
        _durable(name, config[name], wanted, lossy_allowed) for name, wanted in _DURABLE.items() if name in config
    ]
    hidden = [name for name in _DURABLE if name not in config]
    return _with_start_line(checks) + ([_hidden(hidden, settings)] if hidden else [])


def _with_start_line(checks: list[Check]) -> list[Check]:
    """The checks, the first that fails also with the line that cures all of them; once is enough."""
    line = f" Or start one that passes: {START_LINE} and set REDIS_URL={STORE_URL} with a PASSWORD of your own."
    at = next((at for at, check in enumerate(checks) if not check.ok), None)
    return checks if at is None else [*checks[:at], replace(checks[at], cure=checks[at].cure + line), *checks[at + 1 :]]


def _hidden(names: list[str], settings: Settings) -> Check:
    """What the store does not tell has to be vouched for by a person."""
    attested = settings.store_durability == "attested"
    found = f"CONFIG GET does not tell {', '.join(names)}" + (", the operator vouches for it" if attested else "")
    cure = (
        "Let the user read it (ACL: +config|get), or set STORE_DURABILITY=attested to vouch for "
        "appendonly yes, appendfsync always and noeviction yourself."
    )
    return Check(DURABILITY, attested, found, cure, fatal=not settings.allow_lossy_ledger)


def _durable(name: str, found: str, wanted: str, lossy_allowed: bool) -> Check:
    """One line of the store's configuration against what durability takes."""
    cure = (
        f"redis-cli CONFIG SET {name} {wanted}, and the same in its configuration file. "
        "ALLOW_LOSSY_LEDGER=true runs on a store that can lose acknowledged usage."
    )
    return Check(name, found == wanted, found, cure, fatal=not lossy_allowed)


async def _truncated(scene: _Scene) -> Check:
    """A power cut leaves half a command at the end of the file; the store must read past it by itself."""
    found = (scene.config or {}).get("aof-load-truncated", "yes")
    cure = "redis-cli CONFIG SET aof-load-truncated yes, or the store needs a person after a power cut."
    return Check("aof-load-truncated", found == "yes", found, cure, fatal=False)


async def _memory(scene: _Scene) -> Check:
    """Without a limit of its own the store is ended by the kernel instead of refusing writes."""
    limit = (scene.config or {}).get("maxmemory", "unknown")
    exempt = scene.kind is StoreKind.EMBEDDED or scene.config is None
    cure = (
        "redis-cli CONFIG SET maxmemory to 70 % of the machine's memory, so that a full store refuses writes "
        "instead of being ended by the kernel. DEBUG=true lets it pass."
    )
    return Check("maxmemory", exempt or limit != "0", limit, cure, fatal=not scene.relaxed)


async def _user(scene: _Scene) -> Check:
    """A user of its own can be held to this service's keys and commands."""
    if scene.kind is StoreKind.EMBEDDED:
        return Check("store user", ok=True, found="embedded: only this user can open its socket")
    try:
        user = text_of(await scene.client.acl_whoami())
    except StoreError:
        return Check("store user", ok=True, found="a user that may not ask for its own name")
    cure = (
        f"Give the service a user of its own: redis-cli ACL SETUSER metering on '>PASSWORD' {_USER_RULES}, and name "
        f"it in REDIS_URL, as {STORE_URL}. DEBUG=true lets the default user pass."
    )
    return Check("store user", user != "default", user, cure, fatal=not scene.relaxed)


async def _clocks(scene: _Scene) -> Check:
    """The service's clock against the store's; half the round trip is the error of the comparison."""
    before_ms = scene.clock.now_ms()
    seconds, micros = await scene.client.time()
    middle_ms = (before_ms + scene.clock.now_ms()) // 2
    apart_ms = abs(seconds * MS_PER_S + micros // _US_PER_MS - middle_ms)
    cure = "Synchronise the clocks of service and store (NTP): periods end by the store's clock."
    return Check("clocks", apart_ms <= CLOCKS_APART_MAX_MS, f"{apart_ms} ms apart", cure)


_ASKED: Final[tuple[Callable[[_Scene], Awaitable[Check]], ...]] = (_truncated, _memory, _user, _clocks)


async def _dataset(scene: _Scene, catalogue: "Catalogue | None", *, write: bool) -> tuple[DataSet | None, list[Check]]:
    """The data set behind the store, and whether settings and catalogue are the ones it was made with."""
    partitions, codec = scene.settings.partitions, FieldCodec(scene.settings.encryption_ring())
    try:
        dataset = await open_dataset(scene.client, partitions=partitions, create=write, codec=codec)
        found = f"{dataset.id}, {dataset.partitions} partitions" if dataset else "none yet"
        checks = [Check("data set", ok=True, found=found)]
        if catalogue is not None and dataset is not None:
            await check_catalogue(scene.client, catalogue, record=write)
            dataset = await open_dataset(scene.client, partitions=partitions, create=False, codec=codec) or dataset
            checks.append(_applied(catalogue, dataset))
        offset_ms = await stored_offset(scene.client, Keys(partitions)) or 0
        checks += test_clock_checks(scene.settings, offset_ms)
    except MarkerError as error:
        return None, [Check(error.name, ok=False, found=str(error), cure=error.cure)]
    return dataset, checks


def _applied(catalogue: "Catalogue", dataset: DataSet) -> Check:
    """The catalogue, and whether organisations are to be brought to it."""
    behind = 0 < dataset.applied < catalogue.version
    found = f"version {catalogue.version}" + f"; organisations keep version {dataset.applied}" * behind
    cure = "`metering plans diff` shows whom it changes, `metering plans apply` brings everybody to it."
    return Check("catalogue", ok=not behind, found=found, cure=cure, fatal=False)


def test_clock_checks(settings: Settings, offset_ms: int) -> list[Check]:
    """Time that was moved by hand: never with a live key, and known to everybody. None where nobody asks for it."""
    found = f"{offset_ms // MS_PER_S} s ahead"
    if settings.stripe_livemode():
        cure = (
            "Real money is billed by real time: take TEST_CLOCK away, and use a live STRIPE_SECRET_KEY with a data set "
            "whose clock was never moved (another REDIS_DB, REDIS_URL or DATA_DIR)."
        )
        bad = settings.test_clock or offset_ms > 0
        return [Check(TEST_CLOCK, ok=False, found=f"{found}, with a live key for Stripe", cure=cure)] if bad else []
    if settings.test_clock:
        return [Check(TEST_CLOCK, ok=True, found=found)]
    cure = "Set TEST_CLOCK=true (`metering serve --sandbox` does), or use another data set: its time cannot go back."
    return [Check(TEST_CLOCK, ok=False, found=f"{found}, and TEST_CLOCK is off", cure=cure)] if offset_ms else []


async def scripts_check(client: "Redis") -> Check:
    """Whether the store takes every script. Loading one changes no data."""
    try:
        for name in NAMES:
            await client.script_load(script(name).text)
    except StoreError as error:
        return Check("scripts", ok=False, found=str(error), cure="Let the user run SCRIPT LOAD (ACL: +@scripting).")
    return Check("scripts", ok=True, found=f"{', '.join(NAMES)} load")
