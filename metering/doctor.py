"""What `metering doctor` looks at: the gate's own checks, and what only a person wants to know."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from pydantic import SecretStr

from metering.clock import Clock
from metering.credentials import key_file
from metering.jwks import Download, FetchError
from metering.org_marks import OrgMarks
from metering.public_keys import PublicKey, UnusableKeysError, keys_of_jwks
from metering.settings import JWT_SECRET_BYTES_MIN, Settings, SettingsError, StoreKind
from metering.store.binaries import NoServerError, find_binary
from metering.store.connect import connect
from metering.store.folder import Folder, Running
from metering.store.gate import Check, GateReport, run_gate, scripts_check, secret_check
from metering.watching import reports_of, traces_of
from plans.catalogue import Catalogue, CatalogueError, parse


async def examine(settings: Settings, clock: Clock) -> tuple[Check, ...]:
    """Every check of this installation, on the store that the service uses or would use. Writes nothing.

    Raises SettingsError where the generated secret is there and cannot be used.
    """
    path = settings.secret_path()
    if path is None or path.exists():
        return await _examine(settings.with_secret_kept(), clock)
    to_come = settings.model_copy(update={"jwt_secret": SecretStr(secrets.token_hex(JWT_SECRET_BYTES_MIN))})
    found = f"not set; `metering serve` makes one and keeps it in {path}"
    checks = await _examine(to_come, clock)
    return tuple(replace(check, found=found) if check.name == "JWT_SECRET" else check for check in checks)


async def _examine(settings: Settings, clock: Clock) -> tuple[Check, ...]:
    """Every check, with the secret that the service has or will have."""
    advice = (_audience(settings), *await _jwks(settings, clock), _loop())
    if settings.redis_url is not None:
        report = await gate_report(settings, settings.store_url(), StoreKind.EXTERNAL, clock)
        return (*report.checks, *advice)
    running = Running.read(Folder(settings.data_dir.absolute()))
    if running is None:
        checks = (*_catalogue(settings)[1], *_key_file(settings), *_watchers(settings, clock))
        return (secret_check(settings), _server(), *checks, *advice)
    url = f"unix://{running.socket}?db={settings.redis_db}"
    report = await gate_report(settings, url, StoreKind.EMBEDDED, clock)
    return (*report.checks, *advice)


async def gate_report(settings: Settings, url: str, kind: StoreKind, clock: Clock) -> GateReport:
    """The gate's report on the store at `url`, with catalogue and scripts tried as well. Writes nothing."""
    catalogue, checks = _catalogue(settings)
    checks += [*_key_file(settings), *_watchers(settings, clock)]
    async with connect(url) as client:
        report = await run_gate(client, settings, clock, kind=kind, catalogue=catalogue, write=False)
        if any(check.name == "store" and check.ok for check in report.checks):
            checks.append(await scripts_check(client))
    return replace(report, checks=(*report.checks, *checks))


def _catalogue(settings: Settings) -> tuple[Catalogue | None, list[Check]]:
    """The catalogue in force, and a line for every fault that it has."""
    try:
        catalogue = parse(*settings.plans_text())
    except SettingsError as error:
        return None, _faults(error)
    except CatalogueError as error:
        found = [Check("catalogue file", False, f"{f.file}: {f.key}: {f.reason}", f.cure) for f in error.faults]
        return None, found
    return catalogue, [Check("catalogue file", ok=True, found=f"version {catalogue.version}")]


def _key_file(settings: Settings) -> list[Check]:
    """The file of public keys, where there is to be one."""
    try:
        keys = key_file(settings)
    except SettingsError as error:
        return _faults(error)
    return [] if keys is None else [Check("JWT_PUBLIC_KEY_FILE", ok=True, found=_counted(keys.keys))]


def _watchers(settings: Settings, clock: Clock) -> list[Check]:
    """What is wrong with the settings of traces and reports, if anything is."""
    checks: list[Check] = []
    orgs = OrgMarks("none")
    for open_one in (traces_of, partial(reports_of, secrets=(), orgs=orgs, clock=clock)):
        try:
            told = open_one(settings, "")
        except SettingsError as error:
            checks += _faults(error)
        else:
            if told is not None:
                told.close()
    return checks


def _faults(error: SettingsError) -> list[Check]:
    """A line for each fault."""
    return [Check(fault.name, ok=False, found=fault.reason, cure=fault.cure) for fault in error.faults]


async def _jwks(settings: Settings, clock: Clock) -> list[Check]:
    """What the JWKS URL answers now. The service starts without it, and refuses what is signed with its keys."""
    if settings.jwt_jwks_url is None:
        return []
    keys: Sequence[PublicKey] = ()
    try:
        keys, _ = keys_of_jwks(await Download(settings.jwt_jwks_url, clock)())
        found = _counted(keys)
    except (FetchError, UnusableKeysError) as error:
        found = str(error)
    cure = "See that the URL answers from here with keys for RS256, ES256 or EdDSA under a certificate that is trusted."
    return [Check("JWT_JWKS_URL", bool(keys), found, cure, fatal=False)]


def _counted(keys: Sequence[PublicKey]) -> str:
    """How many keys of which algorithms."""
    kinds = Counter(key.algorithm for key in keys)
    return ", ".join(f"{count} for {kind}" for kind, count in sorted(kinds.items())) or "no key that is taken here"


def _server() -> Check:
    """The server that a start would bring up, where none runs yet."""
    try:
        binary = find_binary()
    except NoServerError as error:
        return Check("store", ok=False, found=str(error), cure=error.cure)
    found = f"none runs; `metering serve` would start {binary.name} {binary.version} ({binary.path})"
    return Check("store", ok=True, found=found)


def _audience(settings: Settings) -> Check:
    """Tokens made for another service with the same secret or keys are taken, unless both sides name the audience."""
    said = [name for name, value in (("aud", settings.jwt_audience), ("iss", settings.jwt_issuer)) if value]
    cure = "Set JWT_AUDIENCE and JWT_ISSUER if other services take tokens of the same secret or keys."
    return Check("token audience", len(said) == 2, f"required: {', '.join(said) or 'neither'}", cure, fatal=False)  # noqa: PLR2004


def _loop() -> Check:
    """Uvloop is optional; without it the same machine answers fewer requests."""
    there = find_spec("uvloop") is not None
    cure = "pip install 'usage-metering[fast]' answers half as many requests again."
    return Check("uvloop", there, "installed" if there else "missing", cure, fatal=False)
