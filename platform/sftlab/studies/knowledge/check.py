"""Errors that are found before anything is computed: settings that contradict each other, a bad model."""

from __future__ import annotations

import os
from pathlib import Path

from sftlab.datasets.conversations import exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.templates import load_topics, published_topics
from sftlab.inference.model_check import check_model
from sftlab.inference.spec import EngineSpec
from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
from sftlab.inference.vllm_engine import check_engine_runtime, checkpoint_dtype
from sftlab.store.objects import is_address, parse_address
from sftlab.studies.knowledge.spec import ModelSpec, StudySpec
from sftlab.training.spec import SFTSpec, accumulation_steps, check_runtime, check_spec
from sftlab.weights.companions import companions
from sftlab.weights.pairs import require_embeddings, tied_aliases
from sftlab.weights.shards import Checkpoint

RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in the process that `ray job submit` starts


def check(spec: StudySpec, runtime: Runtime) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with the study."""
    check_store(runtime)
    check_sources(spec)
    check_engine_runtime(runtime.engine)
    check_engine_size(spec.model, runtime)
    check_runtime(runtime.training)
    check_spec(spec.sft, runtime.training)
    accumulation_steps(spec.sft, runtime.training)


def check_engine_size(model: ModelSpec | None, runtime: Runtime) -> None:
    """Raises UserError where the GPUs of an engine are a number over which the model cannot be split."""
    engine = runtime.engine
    known = None if model is None else model.tensor_parallel
    if model is None or known is None or not engine.gpus_per_engine or engine.tensor_parallel in known:
        return
    memory = f", {model.memory_gib:g} GiB in all" if model.memory_gib else ""
    raise UserError(
        f"runtime.engine.tensor_parallel = {engine.tensor_parallel}: an engine of {model.path} takes "
        f"{', '.join(map(str, known))} GPUs{memory}. Set tensor_parallel and gpus_per_engine to one of these numbers, "
        "or change model.tensor_parallel."
    )


def check_store(runtime: Runtime) -> None:
    """Raises UserError for an address that is none, and for a relative folder in a submitted job.

    Ray deletes the working folder of such a job.
    """
    if is_address(runtime.store):
        parse_address(runtime.store)
    elif RAY_JOB in os.environ and not Path(runtime.store).is_absolute():
        raise UserError(
            f"runtime.store={runtime.store}: a submitted job runs in a temporary folder that Ray deletes, and the "
            "results with it. Give an absolute folder that every node reaches, as --store /shared/sftlab/store, or an "
            "address, as --store s3://BUCKET/PREFIX."
        )


def check_sources(spec: StudySpec) -> None:
    """Raises UserError where facts or a model are named by an address."""
    named = {
        "facts.source": spec.facts and spec.facts.source,
        "facts.templates": spec.facts and spec.facts.templates,
        "model.path": spec.model and spec.model.path,
        "pocket.source": spec.pocket and spec.pocket.source,
    }
    for field, path in named.items():
        if path and is_address(str(path)):
            raise UserError(
                f"{field}={path}: an address is for --store alone; copy it to a folder that every node sees, and name "
                "that."
            )


def check_base_model(model: ModelSpec, engine: EngineSpec, sft: SFTSpec) -> None:
    """Raises UserError where the base model cannot be served or trained: no sound safetensors checkpoint
    (headers are read, and embeddings that are stored twice), no dtype where the engine takes the checkpoint's
    own, files beside the weights that cannot be copied, weights that do not fill the model of config.json, or layers
    that cannot be adapted or frozen as `sft` says.
    """
    with Checkpoint.open(model.path) as checkpoint:
        require_embeddings(checkpoint)
        tied_aliases(checkpoint)
    if engine.dtype == "auto":
        checkpoint_dtype(model.path)
    from sftlab.training.hf_model import check_trainable

    check_model(model.path, on_cpu=False)
    companions(Path(model.path))
    check_trainable(Path(model.path), sft)


def check_base_tokenizer(spec: StudySpec) -> list[str]:
    """What the base model's tokenizer loses of a text; the study's templates are among those that are tried.

    Raises UserError as `check_tokenizer` does, and where a token covers the end of a question and the beginning of its
    answer.
    """
    assert spec.model is not None and spec.facts is not None
    topics = load_topics(Path(spec.facts.templates)) if spec.facts.templates else published_topics()
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
    return found
