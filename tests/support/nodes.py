"""A Ray cluster of several nodes on this machine, each with an address of its own, that can be taken apart.

With root and `ip netns` every node lives in a network namespace, joined to the others by a bridge: its cable can be
pulled. Elsewhere the nodes have addresses of the loopback network, and cannot be cut off. Processes of a node are
found by their namespace, or by a variable in their environment, which Ray hands on to all that it starts.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

GIVEN_PORTS: set[int] = set()  # by this process
ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")
MARK = "SFTLAB_TEST_NODE"
STARTED = "Ray runtime started"
START_SECONDS = 180.0
OBJECT_STORE_BYTES = 150_000_000
# A node that is cut off is given up after seconds and not after minutes.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "6",
}


class Network(Protocol):
    """Where nodes have their addresses."""

    can_cut: bool

    def address(self, node: int) -> str: ...

    def on(self, node: int, command: Sequence[str]) -> list[str]:
        """The command as it runs with the node's network."""

    def plug(self, node: int, connected: bool) -> None:
        """Pull a node's cable, or put it back."""

    def holds(self, node: int, process: psutil.Process) -> bool:
        """Whether a process is known to run on a node by its network; False where that cannot be told."""

    def close(self) -> None: ...


class Loopback:
    """Addresses 127.0.0.2, 127.0.0.3, ... (Ray takes 127.0.0.1 for the machine's own name)."""

    can_cut = False

    def address(self, node: int) -> str:
        return f"127.0.0.{node + 2}"

    def on(self, node: int, command: Sequence[str]) -> list[str]:
        del node
        return list(command)

    def plug(self, node: int, connected: bool) -> None:
        del node, connected
        raise RuntimeError("a node of the loopback network has no cable; this needs root and `ip netns`")

    def holds(self, node: int, process: psutil.Process) -> bool:
        del node, process
        return False

    def close(self) -> None:
        return None


class Namespaces:
    """A network namespace a node, all on one bridge. Raises OSError or CalledProcessError where that is not allowed."""

    can_cut = True

    def __init__(self, nodes: int) -> None:
        drawn = random.SystemRandom()
        self.name, self.net = (
            f"s{drawn.randrange(16**6):06x}",
            f"10.{drawn.randrange(200, 250)}.{drawn.randrange(250)}",
        )
        self.nodes = nodes
        try:
            _ip("link", "add", self.name, "type", "bridge")
            _ip("addr", "add", f"{self.net}.1/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
            for node in range(nodes):
                self._add(node)
        except BaseException:
            self.close()
            raise

    def _add(self, node: int) -> None:
        space, cable = f"{self.name}-{node}", f"{self.name}{node}"
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self.name, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "addr", "add", f"{self.address(node)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "route", "add", "default", "via", f"{self.net}.1")  # by it Ray finds its own address

    def address(self, node: int) -> str:
        return f"{self.net}.{node + 2}"

    def on(self, node: int, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}-{node}", *command]

    def plug(self, node: int, connected: bool) -> None:
        _ip("link", "set", f"{self.name}{node}", "up" if connected else "down")

    def holds(self, node: int, process: psutil.Process) -> bool:
        space = Path(f"/run/netns/{self.name}-{node}").stat().st_ino
        try:
            return Path(f"/proc/{process.pid}/ns/net").stat().st_ino == space
        except OSError:
            return False

    def close(self) -> None:
        for node in range(self.nodes):
            subprocess.run(["ip", "netns", "del", f"{self.name}-{node}"], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", f"{self.name}{node}"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def make_network(nodes: int) -> Network:
    """Namespaces where this user may make them, else loopback addresses."""
    try:
        return Namespaces(nodes)
    except (OSError, subprocess.CalledProcessError):
        return Loopback()


@dataclass
class Nodes:
    """A cluster: node 0 is the head, where drivers run. `cpus` are the logical ones of each node."""

    cpus: Sequence[int] = (0, 2, 2)
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = make_network(len(self.cpus))
        self.folder = Path(tempfile.mkdtemp(prefix="sft", dir="/tmp"))  # short: Unix sockets lie below
        self.mark, self.token = secrets.token_hex(8), secrets.token_hex(32)
        self.port = free_port()
        self.started: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return f"{self.network.address(0)}:{self.port}"

    def driver_environment(self) -> dict[str, str]:
        """What a driver needs to join the cluster from the head."""
        ours = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        mine = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        paths = [str(ROOT / "platform"), self.environment.get("PYTHONPATH", ""), mine.get("PYTHONPATH", "")]
        return {**mine, **ours, **self.environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def driver(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command on the head; its output is added to `log`."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                self.network.on(0, command),
                env=self.driver_environment(),
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
            )

    def start(self, *wanted: int) -> None:
        """Start nodes, the head first; all of them if none is named. Returns when they have joined."""
        nodes = list(wanted or range(len(self.cpus)))
        if 0 in nodes:
            self._launch(0)
            self._await(0)
        for node in nodes:
            if node:
                self._launch(node)
        for node in nodes:
            self._await(node)

    def _launch(self, node: int) -> None:
        command = [
            *(RAY, "start", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={self.network.address(node)}", f"--num-cpus={self.cpus[node]}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={self.folder / str(node)}"),
            *("--include-log-monitor=false", f"--dashboard-agent-listen-port={free_port()}"),
            *("--min-worker-port=0", "--max-worker-port=0"),  # any free ones: nodes may share the machine's
        ]
        if node:
            command += [f"--address={self.address}"]
        else:
            command += ["--head", f"--port={self.port}", "--include-dashboard=false"]
            command += [f"--ray-client-server-port={free_port()}"]
        environment = self.driver_environment()
        del environment["RAY_ADDRESS"]
        environment |= {**HEALTH, "RAY_worker_niceness": "0", MARK: f"{self.mark}-{node}", "SPT_NOENV": "1"}
        with self.log(node).open("wb") as stream:
            self.started[node] = subprocess.Popen(
                self.network.on(node, command), env=environment, cwd=ROOT, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip

    def _await(self, node: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while STARTED not in self.log(node).read_text(errors="replace"):
            if self.started[node].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {node} did not start: {self.log(node).read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.1)

    def log(self, node: int) -> Path:
        return self.folder / f"node-{node}.log"

    def processes(self, node: int, *names: str) -> list[psutil.Process]:
        """The live processes of a node, drivers too, or those with one of the names in their title."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # A process that gives itself a title may write it over its environment.
                if (
                    not self.network.holds(node, process)
                    and process.environ().get(MARK) != f"{self.mark}-{node}"
                ):
                    continue
                title = " ".join([process.name(), *process.cmdline()[:1]])
                if process.status() != psutil.STATUS_ZOMBIE and (not names or any(n in title for n in names)):
                    found.append(process)
        return found

    def kill(self, node: int) -> None:
        """SIGKILL to every process of a node, as when the power fails."""
        deadline = time.monotonic() + 60
        while living := self.processes(node):
            for process in living:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if time.monotonic() > deadline:
                raise RuntimeError(f"node {node} cannot be killed: {living}")
            time.sleep(0.1)
        if node in self.started:
            self.started.pop(node).wait()

    def kill_raylet(self, node: int) -> None:
        """SIGKILL to a node's raylet alone; the rest of the node then ends by itself."""
        for process in self.processes(node, "raylet"):
            process.kill()

    def alive(self, node: int) -> bool:
        """Whether a node's raylet runs."""
        return bool(self.processes(node, "raylet"))

    def close(self) -> None:
        """End all nodes and take the network down."""
        for node in range(len(self.cpus)):
            self.kill(node)
        self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def cluster(cpus: Sequence[int] = (0, 2, 2), environment: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """Started nodes, ended with the context."""
    nodes = Nodes(cpus, environment or {})
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.close()


def free_port() -> int:
    """A port that is free now, below those that the system hands out by itself, and another one each time."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            if port not in GIVEN_PORTS and probe.connect_ex(("127.0.0.1", port)):
                GIVEN_PORTS.add(port)  # its user may not listen yet
                return port
