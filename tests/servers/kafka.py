"""Real Apache Kafka: one KRaft node on free ports, or three of them; the jars are fetched by Maven into the cache folder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

from tests.servers.certificates import Certificates
from tests.servers.process import HOST, Server, free_port, listens
from tests.servers.programs import require

TESTED: Final = "4.3.0"
"""The version of Apache Kafka; docker-compose.yml uses the same."""
_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tocsin</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{TESTED}</version>
</dependency></dependencies></project>
"""
_FAST_START: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class KafkaFetchError(RuntimeError):
    """Maven could not fetch the broker; carries what it said."""


def cache_folder() -> Path:
    """Where the jars are kept: tocsin/kafka-<version> in XDG_CACHE_HOME, by default ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tocsin" / f"kafka-{TESTED}"


def fetch() -> Path:
    """The folder of the broker's jars, fetched on first use (45 MB)."""
    lib = cache_folder() / "lib"
    if (lib / f"kafka_2.13-{TESTED}.jar").exists():
        return lib
    require("java", "mvn")
    lib.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching Apache Kafka {TESTED} by Maven into {lib.parent}", flush=True)
    with tempfile.TemporaryDirectory(dir=lib.parent) as folder:
        pom, fresh = Path(folder) / "pom.xml", Path(folder) / "lib"
        pom.write_text(_POM)
        command = ["mvn", "-B", "-q", "-f", str(pom), _PLUGIN, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KafkaFetchError(
                f"`{' '.join(command)}` failed with status {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
            )
        if not lib.exists():  # another run may have been faster
            fresh.rename(lib)
    return lib


@dataclass(frozen=True, slots=True)
class Quorum:
    """The nodes that vote together: the identity of their cluster, and the controller's port by node."""

    identity: str
    controllers: Mapping[int, int]


class KafkaServer(Server):
    """One broker with a plain listener at `bootstrap`.

    With `certificates` and `users` (password by name) it also listens with SASL_SSL at `secure` (SCRAM-SHA-512 and
    PLAIN) and with mutual TLS at `mutual`. `node` and `quorum` make it one of several.
    """

    name = "kafka"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        heap: str = "512m",
        throughput: bool = False,
        certificates: Certificates | None = None,
        users: Mapping[str, str] | None = None,
        node: int = 1,
        quorum: Quorum | None = None,
    ) -> None:
        require("java")
        super().__init__(folder)
        self._lib = fetch()
        self._heap = heap
        self._throughput = throughput
        self._certificates = certificates
        self._users = dict(users or {})
        self._node, self._quorum = node, quorum
        self._ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "SECURE", "MUTUAL")}
        if port is not None:
            self._ports["PLAINTEXT"] = port
        if quorum is not None:
            self._ports["CONTROLLER"] = quorum.controllers[node]
        self._properties = folder / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._configuration().items()))

    @property
    def bootstrap(self) -> str:
        """Address of the plain listener."""
        return f"{HOST}:{self._ports['PLAINTEXT']}"

    @property
    def secure(self) -> str:
        """Address of the listener with SASL_SSL."""
        return f"{HOST}:{self._ports['SECURE']}"

    @property
    def mutual(self) -> str:
        """Address of the listener that asks for a client certificate."""
        return f"{HOST}:{self._ports['MUTUAL']}"

    def start(self) -> None:
        """Format the data folder where it is new, start the broker and wait until it answers."""
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()
        super().start()

    def command(self) -> list[str]:
        options = ("-XX:+UseParallelGC",) if self._throughput else _FAST_START
        return ["java", *options, "-Xms128m", f"-Xmx{self._heap}", "-cp", f"{self._lib}/*", "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        if not listens(self._ports["PLAINTEXT"]):
            return False
        with ThreadPoolExecutor(1) as apart:  # the caller may run in an event loop
            return apart.submit(asyncio.run, _has_broker(self.bootstrap)).result()

    def _format(self) -> None:
        command = ["java", *_FAST_START, "-cp", f"{self._lib}/*", "kafka.tools.StorageTool", "format"]
        command += ["--standalone"] if self._quorum is None else []
        identity = new_identity() if self._quorum is None else self._quorum.identity
        command += ["--cluster-id", identity, "--config", str(self._properties)]
        for name, password in self._users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)

    def _configuration(self) -> dict[str, str]:
        names = ["PLAINTEXT", "CONTROLLER"] + (["SECURE", "MUTUAL"] if self._certificates else [])
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "SECURE": "SASL_SSL", "MUTUAL": "SSL"}
        listeners = {name: f"{name}://{HOST}:{self._ports[name]}" for name in names}
        return (
            {
                "process.roles": "broker,controller",
                "node.id": str(self._node),
                "controller.listener.names": "CONTROLLER",
                "listeners": ",".join(listeners.values()),
                "advertised.listeners": ",".join(address for name, address in listeners.items() if name != "CONTROLLER"),
                "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in names),
                "log.dirs": str(self.folder / "data"),
                "offsets.topic.replication.factor": "1",
                "offsets.topic.num.partitions": "1",
                "transaction.state.log.replication.factor": "1",
                "transaction.state.log.num.partitions": "1",
                "transaction.state.log.min.isr": "1",
                "share.coordinator.state.topic.replication.factor": "1",
                "share.coordinator.state.topic.num.partitions": "1",
                "share.coordinator.state.topic.min.isr": "1",
                "group.initial.rebalance.delay.ms": "0",
                "broker.session.timeout.ms": "3000",  # how long a killed broker waits before it may register again
                "broker.heartbeat.interval.ms": "500",
                "auto.create.topics.enable": "false",
                "log.index.size.max.bytes": "262144",
                "log.cleaner.dedupe.buffer.size": "8388608",
                "log.cleaner.backoff.ms": "500",
                "num.network.threads": "2",
                "num.io.threads": "4",
                "background.threads": "2",
            }
            | self._voters()
            | (self._security(self._certificates) if self._certificates else {})
        )

    def _voters(self) -> dict[str, str]:
        if self._quorum is None:
            return {"controller.quorum.bootstrap.servers": f"{HOST}:{self._ports['CONTROLLER']}"}
        nodes = self._quorum.controllers
        copies = str(len(nodes))
        return {
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in nodes.items()),
            "default.replication.factor": copies,
            "min.insync.replicas": "2",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "2",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": "2",
            "replica.lag.time.max.ms": "5000",
        }

    def _security(self, certificates: Certificates) -> dict[str, str]:
        module = "org.apache.kafka.common.security"
        users = " ".join(f'user_{name}="{password}"' for name, password in self._users.items())
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(certificates.authority),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            "listener.name.secure.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {users};",
            "listener.name.mutual.ssl.client.auth": "required",
        }


class KafkaCluster:
    """Three nodes, each broker and controller, that replicate every topic three times; writes need two of them."""

    NODES: Final = (1, 2, 3)

    def __init__(self, folder: Path, *, heap: str = "256m") -> None:
        quorum = Quorum(new_identity(), {node: free_port() for node in self.NODES})
        self.nodes = {node: KafkaServer(folder / f"node-{node}", heap=heap, node=node, quorum=quorum) for node in self.NODES}

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes."""
        return ",".join(node.bootstrap for node in self.nodes.values())

    def start(self) -> None:
        """Start all nodes, at once, since none answers before two of them vote."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(KafkaServer.start, self.nodes.values()))

    def kill(self) -> None:
        """End all nodes as a power cut would."""
        for node in self.nodes.values():
            node.kill()

    def stop(self) -> None:
        """End all nodes; the last ones have nobody to hand over to, and are killed after a while."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.stop(within=8.0), self.nodes.values()))


def new_identity() -> str:
    """A random identity of a cluster."""
    return "K" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]  # one with "-" first reads as an option


async def _has_broker(bootstrap: str) -> bool:
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=2_000)
    try:
        await client.bootstrap()
        return bool(client.cluster.brokers())
    except KafkaError:
        return False
    finally:
        await client.close()
