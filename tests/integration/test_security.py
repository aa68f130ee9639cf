"""TOCSIN_KAFKA_* against a real broker that asks for it: SASL_SSL with SCRAM and PLAIN, passwords in files, mutual TLS."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError

from streams.settings import Settings
from tests.command import tocsin
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.kafka import KafkaServer
from tests.servers.programs import MissingProgramError

pytestmark = pytest.mark.integration
USER, PASSWORD = "alice", "alice-secret-7f3d"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[KafkaServer]:
    try:
        server = KafkaServer(tmp_path_factory.mktemp("secure"), certificates=certificates, users={USER: PASSWORD})
    except MissingProgramError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def environment(broker: KafkaServer, certificates: Certificates) -> dict[str, str]:
    return {
        "TOCSIN_BOOTSTRAP_SERVERS": broker.secure,
        "TOCSIN_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "TOCSIN_KAFKA_USERNAME": USER,
        "TOCSIN_KAFKA_PASSWORD": PASSWORD,
        "TOCSIN_KAFKA_CA": str(certificates.authority),
    }


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_produces_and_consumes_with_a_password(environment: dict[str, str], mechanism: str) -> None:
    settings = Settings.from_environment(environment | {"TOCSIN_KAFKA_SASL_MECHANISM": mechanism})
    assert await _round_trip(settings, f"password-{mechanism}") == b"hello"


async def test_reads_the_password_from_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    del environment["TOCSIN_KAFKA_PASSWORD"]
    settings = Settings.from_environment(environment | {"TOCSIN_KAFKA_PASSWORD_FILE": str(file)})
    assert await _round_trip(settings, "password-file") == b"hello"


async def test_produces_and_consumes_with_a_client_certificate(broker: KafkaServer, certificates: Certificates) -> None:
    settings = Settings.from_environment(
        {
            "TOCSIN_BOOTSTRAP_SERVERS": broker.mutual,
            "TOCSIN_KAFKA_SECURITY_PROTOCOL": "SSL",
            "TOCSIN_KAFKA_CA": str(certificates.authority),
            "TOCSIN_KAFKA_CERTIFICATE": str(certificates.client),
            "TOCSIN_KAFKA_KEY": str(certificates.client_key),
        }
    )
    assert await _round_trip(settings, "certificate") == b"hello"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"TOCSIN_KAFKA_PASSWORD": "wrong"}, "SaslAuthenticationFailed"),
        ({"TOCSIN_KAFKA_SASL_MECHANISM": "PLAIN", "TOCSIN_KAFKA_PASSWORD": "wrong"}, "Invalid username or password"),
        ({"TOCSIN_KAFKA_CA": ""}, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_refusals_are_told(
    environment: dict[str, str], change: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.from_environment(environment | change)
    with caplog.at_level(logging.ERROR, "aiokafka"), pytest.raises(KafkaConnectionError, match="Unable to bootstrap"):
        await _round_trip(settings, "refused")
    assert reason in caplog.text
    assert settings.bootstrap_servers in caplog.text


def test_the_command_works_with_a_password(environment: dict[str, str]) -> None:
    done = tocsin(environment | {"TOCSIN_TOPIC_PREFIX": "command."}, "topics")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "command.mcp.events" in done.stdout + done.stderr


def test_the_command_tells_a_wrong_password_and_shows_none(environment: dict[str, str]) -> None:
    done = tocsin(environment | {"TOCSIN_KAFKA_PASSWORD": "wrong-9ab1"}, "topics")
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert environment["TOCSIN_BOOTSTRAP_SERVERS"] in told
    assert "authentication failed" in told.lower() or "authenticationfailed" in told.lower()
    assert "Traceback" not in told
    assert "wrong-9ab1" not in told


async def _round_trip(settings: Settings, topic: str) -> bytes | None:
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    try:
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    async with AIOKafkaProducer(**settings.kafka_client(), acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"hello")
    async with AIOKafkaConsumer(topic, **settings.kafka_client(), auto_offset_reset="earliest") as consumer:
        value: bytes | None = (await consumer.getone()).value
        return value
