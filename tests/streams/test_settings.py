"""Settings: defaults, refusals that name the variable, secrets that stay hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.settings import Settings, SettingsError

REMOTE = {"TOCSIN_BOOTSTRAP_SERVERS": "kafka.example:9092"}


def test_defaults_stay_on_the_loopback() -> None:
    settings = Settings.from_environment({"PATH": "/bin"})
    assert settings.is_loopback()
    settings.require_control_key()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TOCSIN_BOOTSTRAP_SERVER": "x"}, "unknown setting TOCSIN_BOOTSTRAP_SERVER"),
        ({"TOCSIN_METRICS_PORT": "http"}, "TOCSIN_METRICS_PORT='http'"),
        ({"TOCSIN_METRICS_PORT": "70000"}, "TOCSIN_METRICS_PORT"),
        ({"TOCSIN_REDIS_URL": "foo"}, "TOCSIN_REDIS_URL: use redis://"),
        ({"TOCSIN_SESSION_TIMEOUT": "3"}, "TOCSIN_SESSION_TIMEOUT"),
        ({"TOCSIN_FENCING": "no"}, "TOCSIN_FENCING='no': use one of on, off"),
        ({"TOCSIN_KAFKA_SECURITY_PROTOCOL": "TLS"}, "SASL_SSL"),
        ({"TOCSIN_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "TOCSIN_KAFKA_USERNAME"),
        ({"TOCSIN_KAFKA_CA": "/nowhere.pem"}, "TOCSIN_KAFKA_CA=/nowhere.pem: there is no such file"),
    ],
)
def test_unusable_settings_are_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings.from_environment(environment)


def test_control_records_are_signed_where_others_reach_the_broker() -> None:
    remote = Settings.from_environment(REMOTE)
    with pytest.raises(SettingsError, match="TOCSIN_CONTROL_KEY must be set"):
        remote.require_control_key()
    Settings.from_environment(REMOTE | {"TOCSIN_CONTROL_KEY": "a long random text"}).require_control_key()


@pytest.mark.parametrize(
    ("servers", "loopback"),
    [
        ("127.0.0.1:9092", True),
        ("localhost:9092, [::1]:9093", True),
        ("127.0.0.1:9092,kafka.example:9092", False),
        ("localhost.example:9092", False),
        ("127.example:9092", False),
    ],
)
def test_only_addresses_of_this_machine_count_as_loopback(servers: str, loopback: bool) -> None:
    assert Settings.from_environment({"TOCSIN_BOOTSTRAP_SERVERS": servers}).is_loopback() is loopback


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from a file\n")
    settings = Settings.from_environment(
        {
            "TOCSIN_KAFKA_PASSWORD": "hush",
            "TOCSIN_KAFKA_PASSWORD_FILE": str(file),
            "TOCSIN_CONTROL_KEY": "hush",
            "TOCSIN_REDIS_URL": "redis://user:hush@redis.example:6379/1?password=hush",
            "TOCSIN_WEBHOOK_URL": "https://hush.example/hush",
        }
    )
    assert settings.password() == "from a file"
    assert "hush" not in str(settings.shown())
    assert "hush" not in repr(settings)
    assert settings.shown()["TOCSIN_REDIS_URL"] == "redis://(hidden)@redis.example:6379/1"
