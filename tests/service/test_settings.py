"""Settings: read once, from three places, every fault at once and no secret in any message."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from metering.setting_sources import Fault, keep_new_secret
from metering.setting_watching import LogLevel
from metering.settings import JWT_SECRET_DEFAULT, Settings, SettingsError, StoreKind
from tests.support.service import ROOT

CANARY = "canary-7f3a9c1e"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without `.env`, and an environment without settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def _faults(env_file: Path = Path(".env")) -> tuple[Fault, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env_file)
    return caught.value.faults


def _source(name: str, secrets_dir: Path | None = None) -> str:
    rows = {row.name: row for row in Settings.load(secrets_dir=secrets_dir).describe()}
    return rows[name].source


def test_without_any_setting_the_documented_defaults_hold() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.redis_db, settings.partitions) == ("127.0.0.1", 8005, 2, 64)
    assert settings.jwt_secret.get_secret_value() == JWT_SECRET_DEFAULT
    assert settings.store_url() == "redis://localhost:6379/2"
    assert not settings.debug


@pytest.mark.parametrize(
    ("text", "ms"), [("0", 0), ("0d", 0), ("90s", 90_000), ("24h", 86_400_000), ("7d", 604_800_000)]
)
def test_the_retention_of_events_is_told_in_ms(text: str, ms: int) -> None:
    assert Settings(event_retention=text).event_retention_ms() == ms


def test_building_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    assert Settings().port == 8005


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PORT", "9000", 9000),
        ("DEBUG", "yes", True),
        ("DEBUG", "0", False),
        ("LOG_LEVEL", "debug", LogLevel.DEBUG),
        ("LOG_LEVEL", "WARNING", LogLevel.WARNING),
        ("PARTITIONS", "1", 1),
        ("PARTITIONS", "4096", 4096),
        ("STORE_SPAN", "partition", "partition"),
        ("EVENT_RETENTION", "0", "0"),
        ("EVENT_RETENTION", "400d", "400d"),
        ("FRONTEND_URL", "https://x.example/", "https://x.example"),
        ("PLANS_FILE", "plans.toml", Path("plans.toml")),
        ("stripe_price_basic", "price_1", "price_1"),
        ("JWT_PUBLIC_KEY_FILE", "keys.pem", Path("keys.pem")),
        ("JWT_JWKS_URL", "https://id.example/keys?v=1", "https://id.example/keys?v=1"),
        ("JWT_JWKS_URL", "http://127.0.0.1:9000/keys", "http://127.0.0.1:9000/keys"),
        ("JWT_JWKS_URL", "http://[::1]/keys", "http://[::1]/keys"),
        ("JWT_JWKS_URL", "http://localhost/keys", "http://localhost/keys"),
    ],
)
def test_a_good_value_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(Settings.load(), name.lower()) == value


@pytest.mark.parametrize("name", ["PORT", "REDIS_URL", "JWT_SECRET", "DEBUG", "PLANS_FILE"])
def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert _source(name) == "default"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "http", "valid integer"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("PARTITIONS", "63", "not a power of two"),
        ("PARTITIONS", "8192", "less than or equal to 4096"),
        ("PARTITIONS", "0", "greater than or equal to 1"),
        ("REDIS_DB", "-1", "greater than or equal to 0"),
        ("REDIS_URL", "http://x", "scheme is none of"),
        ("REDIS_URL", "redis://", "host is missing"),
        ("REDIS_URL", "redis://h/two", "database"),
        ("REDIS_URL", "redis://h:99999", "port"),
        ("REDIS_URL", "unix://", "absolute path"),
        ("REDIS_URL", "redis://h?foo=1", "not foo"),
        ("REDIS_URL", "redis://h?socket_timeout=abc", "not socket_timeout"),
        ("STORE_SPAN", "slot", "'node' or 'partition'"),
        ("LATE_POLICY", "later", "'current', 'original' or 'reject'"),
        ("STORE_DURABILITY", "yes", "'attested'"),
        ("LOG_LEVEL", "loud", "'INFO'"),
        ("DEBUG", "release", "boolean"),
        ("FRONTEND_URL", "example.com", "http or https"),
        ("STRIPE_SECRET_KEY", "pk_test_1", "sk_ or rk_"),
        ("STRIPE_PUBLISHABLE_KEY", "sk_test_1", "pk_"),
        ("STRIPE_WEBHOOK_SECRET", "secret", "whsec_"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_a,secret", "whsec_"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_", "says nothing more"),
        ("STRIPE_WEBHOOK_SECRET", ",", "whsec_"),
        ("ENCRYPTION_KEYS", "A" * 43, "does not begin with an id"),
        ("ENCRYPTION_KEYS", f"k.1:{'A' * 43}", "does not begin with an id"),
        ("ENCRYPTION_KEYS", f"k1:{'A' * 42}", "not 32 bytes"),
        ("ENCRYPTION_KEYS", f"k1:{'!' * 43}", "not 32 bytes"),
        ("ENCRYPTION_KEYS", f"k1:{'A' * 43},", "part 2"),
        ("ENCRYPTION_KEYS", f"k1:{'A' * 43},k1:{'B' * 42}A", "the id or the key of an earlier"),
        ("ENCRYPTION_KEYS", f"k1:{'A' * 43},k2:{'A' * 43}=", "the id or the key of an earlier"),
        ("EVENT_RETENTION", "7", "a number and a unit"),
        ("EVENT_RETENTION", "1w", "a number and a unit"),
        ("EVENT_RETENTION", "-1d", "a number and a unit"),
        ("EVENT_RETENTION", "401d", "more than 400d"),
        ("HISTORY_DAYS", "61", "greater than or equal to 62"),
        ("OVERAGE_WINDOW_DAYS", "39", "greater than or equal to 40"),
        ("METRICS_TOP_ORGS", "1001", "less than or equal to 1000"),
        ("JWT_JWKS_URL", "http://id.example/keys", "on loopback only"),
        ("JWT_JWKS_URL", "http://127.0.0.1.id.example/keys", "on loopback only"),
        ("JWT_JWKS_URL", "http://localhost@id.example/keys", "on loopback only"),
        ("JWT_JWKS_URL", "file:///etc/keys.json", "not an https URL"),
        ("JWT_JWKS_URL", "data:application/json,{}", "not an https URL"),
        ("JWT_JWKS_URL", "https:///keys", "not an https URL"),
        ("JWT_JWKS_URL", "https://id.example:0/keys", "not an https URL"),
        ("JWT_JWKS_URL", "https://id.example:http/keys", "port"),
        ("JWT_JWKS_URL", "https://user:word@id.example/keys", "credentials"),
        ("JWT_JWKS_URL", "https://id.example/keys#a", "credentials"),
        ("JWT_JWKS_URL", "https://id.example/my keys", "credentials"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason_and_a_cure(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, reason: str
) -> None:
    monkeypatch.setenv(name, text)
    (fault,) = _faults()
    assert (fault.name, fault.source) == (name, "env")
    assert reason in fault.reason
    assert fault.cure.startswith(f"Set {name} to ")


def test_all_faults_of_all_sources_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "http")
    monkeypatch.setenv("REDIS_UR", "redis://h")
    (tmp_path / ".env").write_text("WORKERS=0\nSTRIPE_SECRET=x\nno line at all\nNOBODY=1\n")
    assert [fault.name for fault in _faults()] == [
        "REDIS_UR", ".env:3", "NOBODY", "STRIPE_SECRET", "PORT", "WORKERS"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REDIS_UR", "REDIS_URL"),
        ("REDIS_URI", "REDIS_URL"),
        ("STRIPE_SECRET", "STRIPE_SECRET_KEY"),
        ("STRIPE_SECRETKEY", "STRIPE_SECRET_KEY"),
        ("JWT_SECRET_KEY", "JWT_SECRET"),
        ("JWT_SECRETS", "JWT_SECRET"),
        ("ALLOW_LOSSY_LEDGERS", "ALLOW_LOSSY_LEDGER"),
        ("AUTOCREATE_ORGS", "AUTO_CREATE_ORGS"),
        ("redis_ur", "REDIS_URL"),
    ],
)
def test_a_misspelt_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "x")
    (fault,) = _faults()
    assert fault.name == name.upper()
    assert f"Rename it to {meant}" in fault.cure


def test_a_name_with_our_prefix_that_nothing_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_REDIS", "x")
    assert [fault.name for fault in _faults()] == ["METERING_REDIS"]


@pytest.mark.parametrize(
    "name",
    [
        "HOSTNAME", "HOME", "PORTS", "DEBUGGER", "REDIS_PORT", "REDIS_HOST", "STRIPE_API_KEY", "DATABASE_URL",
        "REDIS", "STRIPE", "JWT", "DATA",
        "METERING_PORT", "METERING_SERVICE_HOST", "METERING_PORT_8005_TCP_ADDR", "METERING_SERVICE_PORT_HTTP",
    ],
)  # fmt: skip
def test_a_name_of_somebody_else_in_the_environment_is_let_be(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert Settings.load().port == 8005


def test_an_unknown_name_in_the_file_is_refused_unless_it_is_another_tools(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=x\nVITE_OTHER=x\nSOMETHING=x\n")
    assert [fault.name for fault in _faults()] == ["SOMETHING"]


@pytest.mark.parametrize("text", [b"\xff\xfe=1\n", b"PORT=80\xff\n"])
def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".env").write_bytes(text)
    (fault,) = _faults()
    assert "cannot be read" in fault.reason


def test_the_example_file_names_only_settings_that_exist(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = [found[1] for line in lines if (found := re.match(r"#([A-Z][A-Z0-9_]+)=", line))]
    (tmp_path / ".env").write_text("".join(f"{name}=\n" for name in names))
    assert len(names) > 20
    assert Settings.load().port == 8005


def test_options_win_over_environment_over_file_over_secret_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "port").write_text("1\n")
    assert Settings.load(secrets_dir=folder).port == 1
    (tmp_path / ".env").write_text("PORT=2\n")
    assert Settings.load(secrets_dir=folder).port == 2
    monkeypatch.setenv("PORT", "3")
    assert Settings.load(secrets_dir=folder).port == 3
    assert Settings.load(secrets_dir=folder, options={"port": 4}).port == 4
    assert Settings.load(secrets_dir=folder, options={"port": None}).port == 3


def test_each_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "JWT_SECRET").write_text("x" * 32 + "\n")
    (tmp_path / ".env").write_text("DEBUG=true\n")
    monkeypatch.setenv("PORT", "9000")
    expected = {"PORT": "env", "DEBUG": ".env", "JWT_SECRET": "file", "HOST": "default"}
    assert {name: _source(name, folder) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "database", "expected"),
    [
        ("redis://h", 2, "redis://h/2"),
        ("redis://h/", 2, "redis://h/2"),
        ("redis://h:7000/5", 2, "redis://h:7000/5"),
        ("redis://h/0", 2, "redis://h/0"),
        ("redis://h?db=7", 2, "redis://h/7"),
        ("redis://h/5?db=7", 2, "redis://h/7"),
        ("rediss://u:p%40w@h:6380", 0, "rediss://u:p%40w@h:6380/0"),
        ("valkey://h", 3, "redis://h/3"),
        ("valkeys://h/1", 3, "rediss://h/1"),
        ("unix:///run/s.sock", 2, "unix:///run/s.sock?db=2"),
        ("unix:///run/s.sock?db=4", 2, "unix:///run/s.sock?db=4"),
        ("redis://[::1]:6379", 2, "redis://[::1]:6379/2"),
        ("rediss://h?ssl_cert_reqs=none", 2, "rediss://h/2?ssl_cert_reqs=none"),
    ],
)
def test_the_database_in_the_url_wins_otherwise_redis_db(url: str, database: int, expected: str) -> None:
    settings = Settings(redis_url=SecretStr(url), redis_db=database)
    assert settings.store_url() == expected


def test_no_secret_is_shown_by_any_view_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "JWT_SECRET": CANARY * 3,
        "STRIPE_SECRET_KEY": f"sk_test_{CANARY}",
        "STRIPE_WEBHOOK_SECRET": f"whsec_{CANARY}",
        "METRICS_TOKEN": CANARY,
        "ENCRYPTION_KEYS": f"k1:{CANARY}{'A' * 28}",
        "REDIS_URL": f"redis://user:{CANARY}@host?password={CANARY}",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert CANARY not in repr(settings) + str(settings.describe())
    assert "user:****@host" in str(settings.describe())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("REDIS_URL", f"http://user:{CANARY}@host"),
        ("REDIS_URL", f"redis://user:{CANARY}/x@host:y"),
        ("STRIPE_SECRET_KEY", CANARY),
        ("STRIPE_WEBHOOK_SECRET", CANARY),
        ("ENCRYPTION_KEYS", f"k1:{CANARY}"),
        ("ENCRYPTION_KEYS", CANARY),
    ],
)
def test_no_fault_repeats_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    faults = _faults()
    assert faults
    assert CANARY not in repr(faults)


def test_the_generated_secret_is_kept_and_found_again(tmp_path: Path) -> None:
    first = Settings(data_dir=tmp_path / "var").with_secret_kept()
    second = Settings(data_dir=tmp_path / "var").with_secret_kept()
    assert first.jwt_secret == second.jwt_secret
    assert len(first.jwt_secret.get_secret_value()) >= 32
    assert (tmp_path / "var" / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_was_set_is_kept_even_if_it_is_the_default(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, jwt_secret=SecretStr(JWT_SECRET_DEFAULT)).with_secret_kept()
    assert settings.jwt_secret.get_secret_value() == JWT_SECRET_DEFAULT
    assert not (tmp_path / "jwt-secret").exists()


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from metering.settings import Settings; "
        f"print(Settings(data_dir=Path({str(tmp_path)!r})).with_secret_kept().jwt_secret.get_secret_value())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1
    assert len(said.pop().strip()) >= 32
    assert [path.name for path in tmp_path.iterdir()] == ["jwt-secret"]


def test_a_secret_that_somebody_kept_first_stays(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text("theirs")
    keep_new_secret(tmp_path / "jwt-secret")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("text", ["short", "", "é" * 40])
def test_a_kept_secret_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "jwt-secret").write_text(text)
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        Settings(data_dir=tmp_path).with_secret_kept()


@pytest.mark.parametrize("by_keys", [{"jwt_public_key_file": Path("k.pem")}, {"jwt_jwks_url": "https://id.example/k"}])
def test_beside_public_keys_only_a_secret_that_was_set_or_kept_signs(tmp_path: Path, by_keys: dict[str, Any]) -> None:
    assert Settings(**by_keys).hs256_secret() is None
    assert Settings(**by_keys, jwt_secret=SecretStr("s" * 32)).hs256_secret() == "s" * 32
    kept = Settings(**by_keys, data_dir=tmp_path).with_secret_kept()
    assert kept.hs256_secret() == (tmp_path / "jwt-secret").read_text().strip()
    assert Settings().hs256_secret() == JWT_SECRET_DEFAULT


def test_the_shipped_catalogue_is_read_from_the_package() -> None:
    text, name = Settings().plans_text()
    assert name == "scorpius.toml"
    assert "[plans.free" in text


@pytest.mark.parametrize("name", ["s3", "threatalytics"])
def test_a_shipped_catalogue_is_chosen_by_its_name_or_number(name: str) -> None:
    text, shown = Settings.model_validate({"plans_file": name}).plans_text()
    assert (text, shown) == ((ROOT / "plans" / "catalogs" / "threatalytics.toml").read_text(), "threatalytics.toml")


def test_a_catalogue_that_is_not_there_is_a_fault_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(plans_file=tmp_path / "none.toml").plans_text()
    assert caught.value.faults[0].name == "PLANS_FILE"
    assert "shipped" in caught.value.faults[0].cure


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("myhost", False)],
)
def test_loopback_is_told_by_the_address_that_the_parent_bound(host: str, loopback: bool) -> None:
    assert Settings(host=host, store_kind=StoreKind.EXTERNAL).bound_to_loopback() is loopback


def test_an_address_that_no_parent_bound_is_not_taken_for_loopback(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=127.0.0.1\n")
    assert not Settings().bound_to_loopback()
    assert not Settings.load().bound_to_loopback()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8005"),
        ("0.0.0.0", "http://127.0.0.1:8005"),
        ("::", "http://[::1]:8005"),
        ("::1", "http://[::1]:8005"),
        ("myhost", "http://myhost:8005"),
    ],
)
def test_a_service_is_reached_where_it_listens(host: str, url: str) -> None:
    assert Settings(host=host).service_url() == url


@pytest.mark.parametrize(
    ("given", "secrets"),
    [(None, ()), ("whsec_a", ("whsec_a",)), (" whsec_a , whsec_b,", ("whsec_a", "whsec_b"))],
)
def test_webhook_secrets_are_a_list_with_commas(given: str | None, secrets: tuple[str, ...]) -> None:
    assert Settings.model_validate({"stripe_webhook_secret": given}).webhook_secrets() == secrets
