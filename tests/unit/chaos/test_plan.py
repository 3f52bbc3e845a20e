"""The plan of a chaos run: the same from the same seed, over all stages, and its trace is read right."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from tests.chaos.plan import SHORT, STAGES, draw, shares, short
from tests.chaos.trace_log import TraceLog, rework, stragglers

TOTALS = {
    "model": 10,
    "mastery": 24,
    "tuned": 60,
    "change": 4,
    "evaluation": 13,
    "results": 1,
    "best": 1,
    "report": 1,
}


def test_sixty_kills_fall_into_every_stage_and_on_every_victim_and_a_seed_repeats() -> None:
    blows = draw(1, 60, TOTALS)
    assert blows == draw(1, 60, TOTALS) != draw(2, 60, TOTALS)
    assert {blow.stage for blow in blows} == set(STAGES) and len(blows) == 60 == sum(shares(60).values())
    counts = Counter(blow.victim for blow in blows)
    assert set(counts) == {"driver", "scorer", "trainer", "engine", "raylet", "node", "head"}
    assert min(counts.values()) >= 2
    assert all(blow.piece < TOTALS[blow.stage] for blow in blows)
    order = [list(STAGES).index(blow.stage) for blow in blows]
    assert order == sorted(order)


def test_named_faults_come_on_top() -> None:
    named = Counter(blow.victim for blow in draw(1, 60, TOTALS, faults=True))
    assert named["full disk"] == 3 and named["hang"] == 3 and named["cut off"] == 2
    assert named["read-only store"] == 1 and sum(named.values()) == 69


def test_the_short_run_has_kills_and_one_fault_of_each_kind_in_order() -> None:
    blows = short(0, 3, TOTALS)
    assert len(blows) == 3 + len(SHORT) and set(draw(0, 3, TOTALS)) < set(blows) == set(short(0, 3, TOTALS))
    assert {"driver", "hang", "cut off", "read-only store"} <= {blow.victim for blow in blows}
    order = [list(STAGES).index(blow.stage) for blow in blows]
    assert order == sorted(order) == [blow.order for blow in blows]


GONE = 2**22 + 1  # no process has this id


def line(event: str, piece: str, pid: int = os.getpid()) -> str:
    return json.dumps({"event": event, "stage": "mastery", "piece": piece, "pid": pid}) + "\n"


def test_a_trace_tells_what_is_open_and_what_was_done_again(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    trace = TraceLog(path)
    trace.refresh()
    path.write_text(
        line("begin", "a") + line("end", "a") + line("begin", "b") + line("begin", "c", GONE)[:10]
    )
    trace.refresh()
    assert trace.begun("mastery") == 2 and [found["piece"] for found in trace.open()] == ["b"]
    path.write_text(
        path.read_text()[:-10] + line("begin", "c", GONE) + line("begin", "b", GONE) + line("end", "b", GONE)
    )
    trace.refresh()
    assert trace.begun("mastery") == 3
    assert rework(trace.lines, [3]) == [{"mastery": 1}]
    assert rework(trace.lines, [1, 3]) == [{}, {"mastery": 1}]  # it had begun between the two blows
    assert stragglers(trace.lines, [3]) == [{}, {}] and stragglers(trace.lines, []) == [{"mastery": 1}]
    assert rework(trace.lines, [1, 6]) == [{}, {}] and stragglers(trace.lines, [1, 6]) == [
        {},
        {"mastery": 1},
        {},
    ]
    assert stragglers(trace.lines, [6]) == [{"mastery": 1}, {}]
