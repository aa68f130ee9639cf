"""Settings: read once from the environment, frozen, and printed at start with secrets hidden."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class SettingsError(ValueError):
    """A setting that cannot be used; names the variable and the remedy."""


def _setting(default: str, help: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"help": help, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of tocsin. The variable of a field is TOCSIN_ and its name in capitals."""

    bootstrap_servers: str = _setting("127.0.0.1:9092", "Kafka brokers, host:port separated by commas")
    redis_url: str = _setting("redis://127.0.0.1:6379/0", "Redis for cooldowns", secret=True)
    data_dir: str = _setting("tocsin-data", "folder of the local state (RocksDB)")
    group: str = _setting("tocsin", "prefix of the consumer groups, changelogs and cooldown keys")
    topic_prefix: str = _setting("", "put before the name of every topic")
    metrics_port: str = _setting("9464", "port of /metrics, /healthz and /readyz on the loopback; 0 turns it off")
    control_key: str = _setting("", "signs ruleset and forward records; may be empty on loopback brokers only", secret=True)
    instance: str = _setting("", "name of this worker for static membership; empty: dynamic")
    session_timeout: str = _setting("10", "seconds after which a silent worker loses its partitions")
    max_groups: str = _setting("100000", "groups that a rule may have on a partition; the same for all workers")
    fencing: str = _setting("on", "'off' for brokers without an idempotent producer (the embedded one)")
    page_max_age: str = _setting("300", "seconds after which an alert is stale when it is decided: it pages nobody")
    webhook_url: str = _setting("", "where the channel 'webhook' posts", secret=True)
    kafka_security_protocol: str = _setting("PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    kafka_sasl_mechanism: str = _setting("SCRAM-SHA-512", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    kafka_username: str = _setting("", "SASL user")
    kafka_password: str = _setting("", "SASL password", secret=True)
    kafka_password_file: str = _setting("", "file that holds the SASL password")
    kafka_ca: str = _setting("", "file with the certificates of the authority, PEM")
    kafka_certificate: str = _setting("", "client certificate, PEM")
    kafka_key: str = _setting("", "key of the client certificate, PEM")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """The settings of `environment`; raises SettingsError for an unknown TOCSIN_ variable or an unusable value."""
        names = {variable(item.name): item.name for item in fields(cls)}
        unknown = sorted(name for name in environment if name.startswith("TOCSIN_") and name not in names)
        if unknown:
            raise SettingsError(f"unknown setting {', '.join(unknown)}; `tocsin run --help` lists them all")
        settings = cls(**{names[name]: value for name, value in environment.items() if name in names})
        settings._check()
        return settings

    def _check(self) -> None:
        for name, allowed in (
            ("kafka_security_protocol", SECURITY_PROTOCOLS),
            ("kafka_sasl_mechanism", SASL_MECHANISMS),
            ("fencing", ("on", "off")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{variable(name)}={getattr(self, name)!r}: use one of {', '.join(allowed)}")
        for name in ("metrics_port", "session_timeout", "page_max_age"):
            if not getattr(self, name).isdecimal() or len(getattr(self, name)) > 5 or int(getattr(self, name)) > 65_535:
                raise SettingsError(f"{variable(name)}={getattr(self, name)!r}: use a whole number up to 65535")
        if not self.max_groups.isdecimal() or not 1 <= int(self.max_groups[:10]) <= 10_000_000:
            raise SettingsError(f"TOCSIN_MAX_GROUPS={self.max_groups!r}: use a whole number from 1 to 10000000")
        if not _is_redis(self.redis_url):
            raise SettingsError("TOCSIN_REDIS_URL: use redis://host:port/number, rediss:// for TLS, or unix://path")
        if int(self.session_timeout) < 6:
            raise SettingsError("TOCSIN_SESSION_TIMEOUT: brokers refuse less than 6 seconds")
        for name in ("kafka_password_file", "kafka_ca", "kafka_certificate", "kafka_key"):
            if getattr(self, name) and not _is_file(getattr(self, name)):
                raise SettingsError(f"{variable(name)}={getattr(self, name)}: there is no such file")
        if self.kafka_security_protocol.startswith("SASL") and not (self.kafka_username and self.password()):
            raise SettingsError("SASL needs TOCSIN_KAFKA_USERNAME and TOCSIN_KAFKA_PASSWORD or TOCSIN_KAFKA_PASSWORD_FILE")
        if bool(self.kafka_certificate) != bool(self.kafka_key):
            raise SettingsError("TOCSIN_KAFKA_CERTIFICATE and TOCSIN_KAFKA_KEY go together")

    def require_control_key(self) -> None:
        """Raise SettingsError where control records would go unsigned to a broker that others reach."""
        if not self.control_key and not self.is_loopback():
            raise SettingsError(
                "TOCSIN_CONTROL_KEY must be set: without it whoever may write events may also switch rules. "
                "Give workers and deployers the same long random text (it may be empty for brokers on the loopback only)"
            )

    def is_loopback(self) -> bool:
        """Whether every broker is on this machine."""
        return all(_is_loopback(server.strip()) for server in self.bootstrap_servers.split(","))

    def password(self) -> str:
        """The SASL password, from its setting or its file. Raises SettingsError where that cannot be read."""
        if self.kafka_password_file:
            try:
                return Path(self.kafka_password_file).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise SettingsError(f"TOCSIN_KAFKA_PASSWORD_FILE={self.kafka_password_file} cannot be read: {error}") from error
        return self.kafka_password

    def kafka_client(self) -> dict[str, Any]:
        """What every aiokafka client takes: servers and security."""
        client: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.kafka_security_protocol,
        }
        if self.kafka_security_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.kafka_ca or None)
            if self.kafka_certificate:
                context.load_cert_chain(self.kafka_certificate, self.kafka_key)
            client["ssl_context"] = context
        if self.kafka_security_protocol.startswith("SASL"):
            client |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.password(),
            }
        return client

    def shown(self) -> dict[str, str]:
        """Every variable and its value, secrets hidden."""
        return {variable(item.name): self._shown(item.name, item.metadata["secret"]) for item in fields(self)}

    def _shown(self, name: str, secret: bool) -> str:
        value: str = getattr(self, name)
        if not secret or not value:
            return value
        parts = urlsplit(value)
        if name != "redis_url":
            return "(hidden)"
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, ("(hidden)@" if "@" in parts.netloc else "") + host, parts.path, "", ""))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"TOCSIN_{name.upper()}"


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # brackets without an address between, a port that is no number
        return False
    return parts.scheme in ("redis", "rediss", "unix")


def _is_loopback(server: str) -> bool:
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
