"""Errors that are found before anything is computed: settings that contradict each other, a bad model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftlab.datasets.conversations import exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.execution.checks import check_keep, check_paths, check_resources
from sftlab.execution.runtime import Runtime
from sftlab.facts.prompts import all_prompt_ids, answer_target, question_prompt
from sftlab.facts.templates import DOMAINS, Topic, study_topics
from sftlab.inference.model_check import context_length
from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
from sftlab.studies.knowledge.spec import ModelSpec, StudySpec


def check(spec: StudySpec, runtime: Runtime) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with the study."""
    check_resources(runtime, [spec.sft])
    check_keep(runtime, ("full", "delta", "recipe"))
    check_paths(
        {
            "facts.source": spec.facts.source if spec.facts else None,
            "facts.templates": spec.facts.templates if spec.facts else None,
            "model.path": spec.model.path if spec.model else None,
            "pocket.source": spec.pocket.source if spec.pocket else None,
        }
    )
    check_engine_size(spec.model, runtime)
    check_left_out(spec)


def check_left_out(spec: StudySpec) -> None:
    """Raises UserError where the topic that training sets leave out is not in domain, or is the only one."""
    topic = spec.training_sets.leave_out
    if topic is None:
        return
    if spec.pocket is not None:
        known = list(spec.pocket.in_domain)
    else:
        assert spec.facts is not None
        templates = Path(spec.facts.templates) if spec.facts.templates else None
        if templates is not None and not templates.exists():
            return  # the plan names the missing file
        topics = study_topics(templates, spec.facts.in_domain)
        known = [name for name, found in topics.items() if found.domain == DOMAINS[0]]
    if topic not in known:
        raise UserError(
            "is no topic in domain, from which training sets are drawn",
            place="training_sets.leave_out",
            value=topic,
            expected=f"one of {', '.join(known)}",
        )
    if len(known) == 1:
        raise UserError(
            "is the only topic in domain, so that nothing is left to train on",
            place="training_sets.leave_out",
            value=topic,
            advice="leave it out of the study's file, or give more topics.",
        )


def check_engine_size(model: ModelSpec | None, runtime: Runtime) -> None:
    """Raises UserError where the GPUs of an engine are a number over which the model cannot be split."""
    engine = runtime.engine
    known = None if model is None else model.tensor_parallel
    if model is None or known is None or not engine.gpus_per_engine or engine.tensor_parallel in known:
        return
    memory = f", {model.memory_gib:g} GiB in all" if model.memory_gib else ""
    raise UserError(
        f"an engine of {model.path} takes {', '.join(map(str, known))} GPUs{memory}, not {engine.tensor_parallel}",
        place="runtime.engine.tensor_parallel",
        value=engine.tensor_parallel,
        advice="set tensor_parallel and gpus_per_engine to one of these numbers, or change model.tensor_parallel.",
    )


def check_metric(spec: StudySpec, facts: Mapping[str, int]) -> None:
    """Raises UserError where the metric that a study sets is measured on splits that have no facts.

    facts: by split.
    """
    splits = spec.chosen_by.splits
    if spec.metric is not None and not any(facts.get(split) for split in splits):
        raise UserError(
            f"{' and '.join(splits)} has no facts, so that no restore percentage could be chosen",
            place="metric",
            value=spec.metric,
            advice=f"give some facts `split: {splits[0]}`, or set another metric.",
        )


def check_context(
    spec: StudySpec, topics: Mapping[str, Topic], tokenizer: Any, limit: int | None
) -> list[str]:
    """Topics whose prompts leave no room for an answer about a usual name, as text.

    limit: tokens of the model's context, None where config.json names none. Raises UserError where not even the
    shortest name fits, whatever the topic: no fact could be scored, or no question asked.
    """
    if limit is None:
        return []
    shortest: dict[str, list[int]] = {"mastery": [], "answers": []}
    long = []
    for name, topic in topics.items():
        for subject in ("a", "Marie Curie"):
            filled = max(map(len, all_prompt_ids(tokenizer, topic.fill(subject)))) + spec.mastery.max_tokens
            (asked,) = map(len, all_prompt_ids(tokenizer, [question_prompt(topic.ask(subject))]))
            asked += spec.answers.max_tokens
            if subject == "a":
                shortest["mastery"].append(filled)
                shortest["answers"].append(asked)
            elif max(filled, asked) > limit:
                long.append(f"topic {name}: {max(filled, asked)} tokens with the answer, of {limit}")
    for part, lengths in shortest.items():
        if lengths and min(lengths) > limit:
            raise UserError(
                f"its context has {limit} tokens, and the shortest prompt with {part}.max_tokens takes {min(lengths)}",
                place=f"model.path={spec.model.path if spec.model else ''}",
                value=min(lengths),
                advice=f"lower {part}.max_tokens, or take shorter templates or another model.",
            )
    return long


def check_base_tokenizer(spec: StudySpec) -> list[str]:
    """What the base model's tokenizer does not keep of a text, or its context not hold, with the study's templates.

    Raises UserError as `check_tokenizer` does, and where a token covers the end of a question and the beginning of its
    answer.
    """
    assert spec.model is not None and spec.facts is not None
    topics = study_topics(Path(spec.facts.templates) if spec.facts.templates else None)
    texts = [
        text
        for topic in topics.values()
        for text in (question_prompt(topic.ask("Marie Curie")), *topic.fill("Marie Curie"))
    ]
    folder = spec.model.path
    tokenizer = load_tokenizer(folder)
    found = check_tokenizer(folder, tokenizer, embedding_rows(folder), texts)
    asked = [topic.ask("Marie Curie") for topic in topics.values()]
    examples = [exchange(question_prompt(question), answer_target("Warsaw")) for question in asked]
    for _ in Encoder(tokenizer, make_template("text", tokenizer, folder), folder).encode_all(examples):
        pass
    return [*found, *check_context(spec, topics, tokenizer, context_length(folder))]
