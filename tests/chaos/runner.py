"""One small study on three nodes: disturbs it as planned, and runs the same command again until it is finished."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.outcome import CHECKPOINT_EVERY, ChaosError
from tests.chaos.plan import Blow
from tests.chaos.trace_log import TraceLog, rework, stragglers
from tests.support.nodes import Nodes

SFTLAB = str(Path(sys.executable).parent / "sftlab")
TRACE = "trace.jsonl"
WORKERS = (1, 2)  # the nodes that hold engines and training workers
ENGINES = 2
CHECKPOINT_STEPS = 2
HANG_SECONDS = 60.0
PATIENCE = 600.0  # longest time without any progress
MOST_IN_VAIN = 5
NAMES = {"scorer": "MapWorker", "engine": "EngineWorker", "trainer": "RayTrainWorker"}
WORKER_BLOWS = {*NAMES, "hang"}
# The same bits as `laptop-2cpu.yaml`: as many threads and workers, spread over two nodes.
RUNTIME = {
    "engine.engines": ENGINES,
    "engine.threads": 2,
    "engine.timeout_seconds": HANG_SECONDS,
    "engine.max_restarts": 5,
    "training.workers": 2,
    "training.placement": "strict_spread",
    "training.checkpoint_every_steps": CHECKPOINT_STEPS,
    "training.max_failures": 5,
    "training.timeout_seconds": HANG_SECONDS,
    "pocket.threads": 2,
    "pocket.checkpoint_every": CHECKPOINT_EVERY,
    "track": "false",
}


@dataclass
class Chaos:
    """One disturbed study: its cluster, its store, its driver, and what has been seen."""

    nodes: Nodes
    folder: Path
    study: Path
    settings: Mapping[str, object]
    say: Callable[[str], None] = print
    driver: subprocess.Popen[bytes] | None = None
    starts: int = 0
    refusals: int = 0
    in_vain: int = 0  # starts in a row after which nothing was computed
    marks_at_start: int = -1
    began: float = field(default_factory=time.monotonic)
    looked: float = 0.0  # when engines and training workers were last looked for
    marks: list[int] = field(default_factory=list)
    unplugged: dict[int, float] = field(default_factory=dict)  # nodes, and when their cables are put back
    left: list[Blow] = field(default_factory=list)  # blows for which the study was finished too early
    refused: bool = False  # the store was full or read-only when the driver ended
    odd: list[str] = field(default_factory=list)  # blows that hit nobody, and ends that no blow explains

    def __post_init__(self) -> None:
        self.store, self.log = self.folder / "store", self.folder.with_suffix(".log")
        self.trace = TraceLog(self.folder.parent / TRACE)

    def tell(self, text: str) -> None:
        self.say(f"{time.monotonic() - self.began:7.1f} s  {text}")

    def command(self) -> list[str]:
        settings = [f"--set=runtime.{key}={value}" for key, value in RUNTIME.items()]
        settings += [f"--set={key}={value}" for key, value in self.settings.items()]
        return [SFTLAB, "run", str(self.study), f"--store={self.store}", *settings]

    def start(self) -> None:
        """Start the driver; the same command each time."""
        self.in_vain = self.in_vain + 1 if self.trace.marks() == self.marks_at_start else 0
        if self.in_vain == MOST_IN_VAIN:
            raise ChaosError(f"{MOST_IN_VAIN} starts without any progress: {self.tail(20)}")
        self.starts, self.marks_at_start = self.starts + 1, self.trace.marks()
        self.driver = self.nodes.driver(self.command(), self.log)

    def run(self, blows: Sequence[Blow]) -> None:
        """Disturb the study as planned and bring it to its end."""
        self.start()
        for number, blow in enumerate(blows, start=1):
            if not self.wait_for(blow):
                self.left = list(blows[number - 1 :])
                return
            self.marks.append(self.trace.marks())
            opened = ", ".join(f"{line['stage']} {line['piece']}" for line in self.trace.open()) or "nothing"
            self.tell(f"{number}/{len(blows)} {self.strike(blow)}; {blow.stage}, open: {opened}")
        self.wait(lambda: self.driver is None, "the end")

    def wait_for(self, blow: Blow) -> bool:
        """Until the moment of a blow, when there is work to disturb; False where the study ended before."""
        while self.driver is not None:
            self.wait(lambda: self.driver is None or self.ready(blow), f"{blow.stage} {blow.piece}")
            time.sleep(blow.delay)
            self.trace.refresh()
            self.look_at_driver()
            if self.driver is not None and self.hits(blow):
                return True
        return False

    def ready(self, blow: Blow) -> bool:
        """Whether the piece of a blow has begun, work goes on after the last blow, and who is to be hit is there."""
        if self.trace.begun(blow.stage) <= blow.piece or self.trace.marks() <= max(self.marks, default=0):
            return False
        if blow.victim in WORKER_BLOWS and time.monotonic() - self.looked < 0.5:
            return False  # to look through all processes takes a while
        self.looked = time.monotonic()
        return self.hits(blow)

    def hits(self, blow: Blow) -> bool:
        """Whether who is to be hit is there."""
        return blow.victim not in WORKER_BLOWS or bool(self.victims(blow))

    def wait(self, reached: Callable[[], bool], what: str) -> None:
        """Until something holds, starting again what has died: drivers by hand, nodes as a supervisor does."""
        seen, since, looked = -1, time.monotonic(), 0.0
        while True:
            self.trace.refresh()
            self.look_at_driver()
            if reached():
                return
            if self.trace.marks() != seen:
                seen, since = self.trace.marks(), time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise ChaosError(f"no progress for {PATIENCE:g} s while waiting for {what}; see {self.log}")
            if time.monotonic() - looked > 2:
                self.revive()
                looked = time.monotonic()
            time.sleep(0.02)

    def look_at_driver(self) -> None:
        """Take note of a driver that has ended; run the command again unless it has finished."""
        if self.driver is None or self.driver.poll() is None:
            return
        code, self.driver = self.driver.returncode, None
        if code == 0:
            return
        if code == 2 and self.refused:
            self.refusals, self.refused = self.refusals + 1, False
        elif code != -signal.SIGKILL and self.nodes.alive(0):
            self.odd.append(f"the run ended with {code}: {self.tail(12)}")
            self.tell(self.odd[-1])
        self.start()

    def tail(self, lines: int) -> str:
        return "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])

    def revive(self) -> None:
        """Put cables back that have been out long enough, and start nodes whose raylet has died."""
        for node, until in list(self.unplugged.items()):
            if time.monotonic() > until:
                self.plug_in(node)
        if not self.nodes.alive(0):
            self.restart_head()
        for node in WORKERS:
            if node not in self.unplugged and not self.nodes.alive(node):
                self.nodes.kill(node)
                self.nodes.start(node)

    def restart_head(self) -> None:
        """A new head at the old address: the driver that ran there is gone, and nodes of the old one join anew."""
        self.end_driver()
        for node in list(self.unplugged):
            self.plug_in(node)
        for node in (0, *WORKERS):
            self.nodes.kill(node)
        self.nodes.start()

    def plug_in(self, node: int) -> None:
        del self.unplugged[node]
        self.nodes.network.plug(node, connected=True)

    def end_driver(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()

    def strike(self, blow: Blow) -> str:
        """Do what a blow says; returns it in words."""
        node = WORKERS[int(blow.chance * len(WORKERS))]
        if blow.victim in NAMES:
            return self.kill_worker(blow, signal.SIGKILL)
        match blow.victim:
            case "driver":
                self.end_driver()
                return "SIGKILL to the driver"
            case "raylet":
                self.nodes.kill_raylet(node)
                return f"SIGKILL to the raylet of node {node}"
            case "node":
                self.nodes.kill(node)
                return f"SIGKILL to all of node {node}"
            case "head":
                self.restart_head()
                return "SIGKILL to all of the head; a new one started"
            case "hang":
                return self.kill_worker(blow, signal.SIGSTOP)
            case "cut off":
                seconds = 5 + 35 * blow.chance
                self.unplugged[node] = time.monotonic() + seconds
                self.nodes.network.plug(node, connected=False)
                return f"node {node} is cut off for {seconds:.0f} s"
            case "full disk":
                return self.refuse(self.fill, self.free, "full disk")
            case "read-only store":
                return self.refuse(self.freeze, self.thaw, "read-only store")
        raise ValueError(blow.victim)

    def kill_worker(self, blow: Blow, how: signal.Signals) -> str:
        """A signal to one engine or training worker."""
        found = self.victims(blow)
        if not found:
            self.odd.append(f"no {blow.victim} was there")
            return self.odd[-1]
        process, name = found[int(blow.chance * len(found))], "gone before it"
        with suppress(psutil.NoSuchProcess):
            name = process.name()
            process.send_signal(how)
        return f"{how.name} to {process.pid}, {name}"

    def victims(self, blow: Blow) -> list[psutil.Process]:
        """Engines, or training workers, that a blow may hit; where its stage is past those of the present one."""
        engines, trainers = (NAMES["scorer"], NAMES["engine"]), (NAMES["trainer"],)
        named = () if blow.victim == "hang" else (NAMES[blow.victim],)
        kinds = (*named, *engines, *trainers)
        for name in kinds:
            if found := [process for node in WORKERS for process in self.nodes.processes(node, name)]:
                return found
        return []

    def refuse(self, begin: Callable[[], None], end: Callable[[], None], what: str) -> str:
        """Let the store refuse files until the run ends: by itself, with exit code 2 and a message."""
        assert self.driver is not None
        size = self.log.stat().st_size
        begin()
        try:
            code = self.driver.wait(timeout=PATIENCE)
        finally:
            end()
        said = self.log.read_bytes()[size:].decode(errors="replace")
        if code != 2 or "Traceback" in said or "error: " not in said:
            raise ChaosError(f"{what}: exit code {code}, and it said: {said[-3000:]}")
        self.refused = True
        return f"{what}: {said.strip().splitlines()[-1]}"

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(2**16))
                ballast.flush()

    def free(self) -> None:
        (self.folder / "ballast").unlink()

    def freeze(self) -> None:
        """Lay a read-only view over the store: files that are open already would forbid to make it so itself."""
        subprocess.run(["mount", "--bind", str(self.store), str(self.store)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.store)], check=True)

    def thaw(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.store)], check=True)

    def told_rework(self) -> list[dict[str, int]]:
        """Pieces computed twice after each blow. Raises ChaosError where they are more than were open.

        What the victims of a blow begin before they die, or are given up, may be as much again. Before the first blow,
        and where there is none, nothing is computed twice.
        """
        self.trace.refresh()
        found, late = rework(self.trace.lines, self.marks), stragglers(self.trace.lines, self.marks)
        if late[0]:
            raise ChaosError(f"computed twice, though nothing was disturbed: {late[0]}")
        most = dict.fromkeys(("tuned", "other ranks"), CHECKPOINT_STEPS + 1)
        most["evaluation"] = ENGINES + 1  # the last result is put away while its engine goes on
        for number, counts in [*enumerate(found, start=1), *enumerate(late)]:
            for stage, count in counts.items():
                if count > most.get(stage, ENGINES):
                    raise ChaosError(f"after blow {number} {count} pieces of {stage} were computed again")
        return found
