"""What every command does the same way: settings, connections, errors, text for a terminal."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import click
from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, UnknownError
from rich.console import Console

from streams.ruleset_log import DeployError
from streams.settings import Settings, SettingsError
from streams.topic_reader import MissingTopicError

WIDE: Final = 160
PATIENCE: Final = 10
"""Seconds within which a broker must answer at first."""
_Result = TypeVar("_Result")


class UnusableSettingsError(click.ClickException):
    """A setting that cannot be used: exit status 2."""

    exit_code = 2


class Failure(click.ClickException):
    """The command could not do what it was asked for: exit status 1."""


def settings(*, signs: bool = False) -> Settings:
    """The settings of the environment; `signs` says that the command writes or checks control records."""
    try:
        configured = Settings.from_environment(os.environ)
        if signs:
            configured.require_control_key()
    except SettingsError as error:
        raise UnusableSettingsError(str(error)) from None
    return configured


def connected(settings: Settings, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`, which talks to Kafka; what goes wrong there becomes one message with a remedy."""
    said = _LastError()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(said)
    try:
        return asyncio.run(_once_reached(settings, work))
    except (MissingTopicError, DeployError) as error:
        raise Failure(str(error)) from None
    except ssl.SSLError as error:
        raise UnusableSettingsError(
            f"the certificates cannot be used: {error}; look at TOCSIN_KAFKA_CA, TOCSIN_KAFKA_CERTIFICATE and TOCSIN_KAFKA_KEY"
        ) from None
    except (KafkaError, TimeoutError, ConnectionError) as error:
        if isinstance(error, BrokenPipeError):
            raise  # whoever read our output has gone; click ends quietly
        raise Failure(_explained(settings, error, said.text)) from None
    finally:
        logger.removeHandler(said)


async def _once_reached(settings: Settings, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`, begun when a broker has answered: clients by themselves wait for one much longer."""
    try:
        client = AIOKafkaClient(**settings.kafka_client(), request_timeout_ms=PATIENCE * 1000)
        try:
            await client.bootstrap()
        finally:
            await client.close()
    except BaseException:
        work.close()
        raise
    return await work


class _LastError(logging.Handler):
    """Keeps what aiokafka logged last as an error: the reason that its exceptions leave out."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep `record`."""
        self.text = visible(record.getMessage())[:300]


def _explained(settings: Settings, error: Exception, said: str) -> str:
    address = settings.bootstrap_servers
    reason = said or visible(f"{type(error).__name__}: {error}")[:300]
    if reason.endswith(": "):
        reason = f"no answer within {PATIENCE} s"
    match error:
        case KafkaConnectionError() | ConnectionError():
            security = "" if settings.kafka_security_protocol == "PLAINTEXT" else f" with {settings.kafka_security_protocol}"
            return (
                f"no Kafka broker answers at {address}{security} ({reason}). Start one there, or set TOCSIN_BOOTSTRAP_SERVERS; "
                "if it asks for TLS or a user, set TOCSIN_KAFKA_SECURITY_PROTOCOL and what goes with it (`tocsin run --help`)"
            )
        case UnknownError() if settings.fencing == "on":
            remedy = "if it has no idempotent producers, as embedded ones, set TOCSIN_FENCING=off"
            return f"the broker at {address} failed ({reason}); {remedy}"
        case KafkaTimeoutError() | TimeoutError():
            return f"the broker at {address} did not answer in time ({reason}); is it up, and are its partitions led?"
    return f"the broker at {address} refused: {reason}"


def stdout() -> Console:
    """Where results go: text as it is, no markup; wide where it is no terminal."""
    return Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def stderr() -> Console:
    """Where progress goes."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, width=None if sys.stderr.isatty() else WIDE)


def visible(text: str) -> str:
    """`text` with its control and formatting characters written out, so that it cannot act on the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def examples(*lines: str) -> str:
    """The epilogue of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
