"""The command that follows one fact through a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftlab.cli.common import JsonFlag, Overrides, Place, RuntimeFile, Shown, StoreFolder, show
from sftlab.cli.study import Study, open_study
from sftlab.facts.text import cleaned

if TYPE_CHECKING:
    from sftlab.studies.knowledge.explain import Answer, CellWay, FactWay

SHOWN_ANSWER = 60  # characters
WRONG_WORDS = {
    "other_entity": "another entity of the topic",
    "no_answer": "no answer",
    "malformed": "not an answer",
}


def explain(
    study: Study,
    fact: Annotated[
        str, typer.Argument(help="A fact id, its first digits, or a subject.", metavar='FACT_ID|"subject"')
    ],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Show one fact's way through a study.

    Its mastery by template, the answers of every model along the ladder, the percentage at which it returns, and the
    training facts nearest to it. Computes nothing.
    """
    show(as_json, lambda: explain_fact(study, fact, runtime, store, overrides or []))


def explain_fact(
    study: Path, fact: str, runtime_file: Path | None, store: Place, overrides: Sequence[str]
) -> Shown:
    """What the store holds of one fact."""
    from sftlab.execution.progress import SilentProgress
    from sftlab.studies.knowledge.build import KnowledgeBuild
    from sftlab.studies.knowledge.explain import explain as way_of

    plan, runtime, opened = open_study(study, runtime_file, store, overrides)
    found = way_of(KnowledgeBuild(plan, opened, runtime, SilentProgress()), fact)
    return Shown(way_json(found), way_text(found))


def way_json(found: FactWay) -> dict[str, Any]:
    """All of it as JSON values; percentages are texts, as keys of JSON are."""
    return {
        **found.fact,
        "splits": list(found.splits),
        "templates": [{"text": text, "hits": hits} for text, hits in found.templates],
        "mastery": None
        if found.mastery is None
        else {name: found.mastery[name] for name in ("r", "bucket", "samples", "error")},
        "base": None if found.base is None else asdict(found.base),
        "cells": [
            {
                "cell": way.cell,
                "trained": way.trained,
                "answers": {f"{at:g}": asdict(answer) for at, answer in way.answers.items()},
                "returns_at": way.returns_at,
                "nearest": list(way.nearest),
                "mastery": {f"{at:g}": r for at, r in way.mastery.items()},
            }
            for way in found.cells
        ],
        "neighbours": list(found.neighbours.values()),
    }


def way_text(found: FactWay) -> str:
    """The same for a person."""
    fact = found.fact
    # A custom fact has forms of a name that look the same.
    names = [
        name for name in dict.fromkeys(map(cleaned, fact["accepted"])) if name != cleaned(fact["object"])
    ]
    lines = [
        f"{fact['fact_id']}  {fact['topic']}, {', '.join(found.splits)}",
        f"  {fact['question']}  {fact['object']}" + (f" (also: {', '.join(names)})" if names else ""),
        "",
        *_mastery_lines(found),
    ]
    if found.base is not None:
        lines += ["", f"base model, asked the question: {_verdict(found.base)}"]
    return "\n".join([*lines, *_ladder_lines(found.cells), *_neighbour_lines(found)])


def _mastery_lines(found: FactWay) -> list[str]:
    row = found.mastery
    if row is None:
        return ["mastery: not scored yet"]
    if row["error"] is not None:
        return [f"mastery: not scored: {row['error']}"]
    samples = row["samples"]
    lines = [
        f"mastery: R = {row['r']:.3f}, bucket {row['bucket']}: {sum(row['hits'])} of "
        f"{samples * len(row['hits'])} completions hold the answer"
    ]
    return lines + [f"  {f'{hits}/{samples}':>7}  {text}" for text, hits in found.templates]


def _ladder_lines(ways: Sequence[CellWay]) -> list[str]:
    asked = [way for way in ways if way.answers]
    if not asked:
        return ["", "No tuned model was asked about this fact."]
    percents = sorted({at for way in asked for at in way.answers})
    width = max(len(way.cell) for way in asked)
    head = " ".join(f"{f'{at:g} %':>6}" for at in percents)
    lines = ["", f"{'restored':<{width}} {head}  returns at"]
    for way in asked:
        marks = " ".join(f"{_mark(way.answers, at):>6}" for at in percents)
        back = f"{way.returns_at:g} %" if way.returns_at is not None else "-"
        note = "  (in its training set)" if way.trained else ""
        lines.append(f"{way.cell:<{width}} {marks}  {back}{note}")
    lines += ["", "answers of the tuned models:"]
    lines += [f"  {way.cell:<{width}} {_verdict(way.answers[0.0])}" for way in asked if 0.0 in way.answers]
    scored = [way for way in asked if way.mastery]
    if scored:
        lines += ["", "mastery R after restoring:"]
        for way in scored:
            rates = (f"{at:g} %: {'error' if r is None else f'{r:.3f}'}" for at, r in way.mastery.items())
            lines.append(f"  {way.cell:<{width}} {', '.join(rates)}")
    moved = {way.cell: {at: a.kl for at, a in way.answers.items() if a.kl is not None} for way in asked}
    if any(moved.values()):
        lines += ["", f"{'KL, nats':<{width}} {head}"]
        for cell, kls in moved.items():
            values = " ".join(f"{kls[at]:>6.3f}" if at in kls else f"{'-':>6}" for at in percents)
            lines.append(f"{cell:<{width}} {values}")
    return lines


def _neighbour_lines(found: FactWay) -> list[str]:
    if not found.neighbours:
        return []
    lines = ["", "nearest training facts:"]
    for fact in found.neighbours.values():
        held = [way.cell for way in found.cells if fact["fact_id"] in way.nearest]
        sets = held[0] if len(held) == 1 else f"{len(held)} training sets"
        lines.append(
            f"  {fact['fact_id']}  {fact['topic']}: {fact['subject']} \N{RIGHTWARDS ARROW} {fact['object']}  ({sets})"
        )
    return lines


def _mark(answers: Mapping[float, Answer], at: float) -> str:
    if at not in answers:
        return ""
    return {True: "right", False: "wrong", None: "error"}[answers[at].correct]


def _verdict(answer: Answer) -> str:
    if answer.correct is None:
        return f"not asked: {answer.error}"
    text = " ".join((answer.answer or "").split())
    shown = text if len(text) <= SHOWN_ANSWER else f"{text[:SHOWN_ANSWER]}..."
    kl = "" if answer.kl is None else f", KL {answer.kl:.3f} nats"
    kind = f", {WRONG_WORDS[answer.kind]}" if answer.kind in WRONG_WORDS else ""
    return f"{'right' if answer.correct else 'wrong'}{kind}: {shown!r}{kl}"
