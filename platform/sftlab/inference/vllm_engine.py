"""One vLLM engine inside the calling process.

vLLM replaces `torch.set_num_threads` of its process, so that a process that serves must never train.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sftlab.cluster.environment import SHORT_SPIN
from sftlab.errors import UserError
from sftlab.inference.engine import Completion, EngineSwapError, Floats, Ids, Prompt, Sampling, WeightSource
from sftlab.inference.model_check import check_model
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.swap import raise_failure, swap_in_worker
from sftlab.inference.tokenizer_check import check_tokenizer
from sftlab.inference.watchdog import process_watchdog
from sftlab.store.mirror import pull
from sftlab.weights.shards import read_json_object

CPU_BLOCK_SIZE = 32  # tokens of a key-value block; the default of 128 wastes a short prompt's cache
CPU_KV_CACHE_GIB = 0.25
CPU_SEQUENCES = 256
FIRST_TOKENS, PROMPT_TOKENS = "raw_logits", "raw_logprobs"  # vLLM's logprobs_mode for each
KV_CACHE_SPACE = (
    "VLLM_CPU_KVCACHE_SPACE"  # where it is set, also to nothing, vLLM ignores engine.kv_cache_gib
)
GIB = 2**30


class VllmEngine:
    """A model folder, loaded once; see `engine.Engine` for the methods.

    Args:
        model_dir: Hugging Face folder with weights and tokenizer. Remote code is never run.
        spec: what changes results (dtype).
        runtime: where and how it runs. A call that takes longer than its `timeout_seconds` ends the process.

    Raises UserError where the folder or the runtime cannot be served.
    """

    def __init__(self, model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> None:
        check_served(model_dir, runtime)
        os.environ.update(environment(runtime))
        import torch

        # vLLM disables this function in its process; OpenMP keeps the number for each calling thread.
        self._set_threads = torch.set_num_threads
        self._threads = 0
        if runtime.gpus_per_engine == 0:
            self._threads = runtime.threads or len(os.sched_getaffinity(0))
        self._claim_threads()
        self._watched = process_watchdog(runtime.timeout_seconds)
        with self._watched:
            from vllm import LLM

            os.environ.pop(KV_CACHE_SPACE, None)
        self.llm = LLM(**engine_arguments(model_dir, spec, runtime))
        # vLLM chooses the class by the model's architecture, so the check reads this one.
        self._tokenizer = self.llm.get_tokenizer()
        check_tokenizer(model_dir, self._tokenizer)
        self._max_model_len = int(self.llm.llm_engine.model_config.max_model_len)
        self._swap_failed = False
        self._swaps = 0

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return self._complete(
            prompts,
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        return [row[0] for row in self._complete(prompts, temperature=0.0, max_tokens=max_tokens)]

    def first_token_top(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[Ids, Floats]:
        """Raw logits: the engine returns them as they leave the model, before temperature.

        Equal logits are ordered by token id, so that the choice of the k does not hang on a sort.
        """
        ids = np.empty((len(prompts), k), dtype=np.int64)
        logits = np.empty((len(prompts), k), dtype=np.float32)
        for row, table in enumerate(self._first_token(prompts, [{"logprobs": k}] * len(prompts))):
            # The sampled token comes on top of the k; greedily it is one of them.
            ranked = sorted(table.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
            assert len(ranked) == k, f"{len(ranked)} logits came back, {k} were asked for"
            ids[row] = [token for token, _ in ranked]
            logits[row] = [logit for _, logit in ranked]
        return ids, logits

    def first_token_at(
        self, prompts: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[Floats]:
        options = [{"logprob_token_ids": sorted(set(ids))} for ids in token_ids]
        tables = self._first_token(prompts, options)
        return [
            np.array([table[token] for token in ids], dtype=np.float32)
            for table, ids in zip(tables, token_ids, strict=True)
        ]

    def log_likelihoods(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Floats]:
        """vLLM would score tokens of prompts by logits too, as `logprobs_mode` says; this call sets another mode.

        vLLM reads such prompts whole, without the prefix cache.
        """
        pairs = list(zip(contexts, continuations, strict=True))
        for context, continuation in pairs:
            assert context and continuation, "a context and a continuation have at least one token each"
            assert len(context) + len(continuation) < self._max_model_len, "too long to score"
        option = {"temperature": 0.0, "max_tokens": 1, "detokenize": False, "prompt_logprobs": 0}
        self._set_prompt_scores(PROMPT_TOKENS)
        try:
            prompts = [[*context, *continuation] for context, continuation in pairs]
            outputs = self.generate(prompts, [{**option, "flat_logprobs": True}] * len(prompts))
        finally:
            self._set_prompt_scores(FIRST_TOKENS)
        found = []
        for (_, continuation), prompt, output in zip(pairs, prompts, outputs, strict=True):
            scores = output.prompt_logprobs
            assert list(scores.token_ids) == prompt[1:], "scores of other tokens than those of the prompt"
            found.append(np.array(scores.logprobs[-len(continuation) :], dtype=np.float32))
        assert all(row.max() < 1e-3 for row in found), "log-probabilities above 0: they are logits"
        return found

    def load_weights(self, source: WeightSource) -> None:
        """Swap in place, forget all cached keys and values, and prove that the swap took.

        An engine whose swap failed refuses every further call, for its weights are of two models.
        """
        self._refuse_after_failed_swap()
        self._claim_threads()
        self._swap_failed, self._swaps = True, self._swaps + 1
        with self._watched:
            found = self.llm.collective_rpc(swap_in_worker, args=(source, self._swaps))
        raise_failure(found)
        if not self.llm.reset_prefix_cache():
            raise EngineSwapError("The cache of the old weights' keys and values could not be dropped.")
        self._swap_failed = False

    def _claim_threads(self) -> None:
        """Give the calling thread all the engine's CPU threads; Ray may call from another one each time."""
        if self._threads:
            self._set_threads(self._threads)

    def _refuse_after_failed_swap(self) -> None:
        if self._swap_failed:
            raise EngineSwapError("An earlier swap of weights failed in this engine; start a new one.")

    def _set_prompt_scores(self, mode: str) -> None:
        with self._watched:
            self.llm.collective_rpc(set_prompt_scores, args=(mode,))

    def _complete(self, prompts: Sequence[Prompt], **options: Any) -> list[list[Completion]]:
        params = [
            # Kept stop strings leave the text up to its verdict whole; skip_clone spares a deep copy each.
            {"seed": prompt.seed, "stop": list(prompt.stop), "include_stop_str_in_output": True, **options}
            for prompt in prompts
        ]
        outputs = self.generate([prompt.token_ids for prompt in prompts], params)
        return [[Completion(o.text, len(o.token_ids)) for o in output.outputs] for output in outputs]

    def _first_token(
        self, prompts: Sequence[Sequence[int]], options: Sequence[dict[str, Any]]
    ) -> list[dict[int, float]]:
        """Logit by token id, of the first token after each prompt."""
        params = [{"temperature": 0.0, "max_tokens": 1, "detokenize": False, **option} for option in options]
        outputs = self.generate(prompts, params)
        return [
            {token: float(entry.logprob) for token, entry in output.outputs[0].logprobs[0].items()}
            for output in outputs
        ]

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        from vllm import SamplingParams, TokensPrompt

        self._refuse_after_failed_swap()
        self._claim_threads()
        if not prompts:
            return []
        with self._watched:
            outputs: list[Any] = self.llm.generate(
                [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts],
                [SamplingParams(skip_clone=True, **values) for values in params],
                use_tqdm=False,
            )
        assert len(outputs) == len(prompts)
        return outputs


def set_prompt_scores(worker: Any, mode: str) -> None:
    """Runs in every vLLM worker: how it scores the tokens of prompts from the next batch on.

    The scores of generated tokens keep the mode of the engine's start: the sampler holds a copy of it.
    """
    runner = worker.model_runner
    runner.model_config.logprobs_mode = mode
    scorer = getattr(runner, "prompt_logprobs_worker", None)  # vLLM's second runner holds a copy here
    if scorer is not None:
        scorer.logprobs_mode = mode


def check_served(model_dir: str, runtime: EngineRuntime) -> None:
    """Raises UserError where the folder is no model that the engine serves, or as `check_engine_runtime` does."""
    if not pull(Path(model_dir) / "config.json").is_file():
        raise UserError("has no config.json", place=model_dir, expected="a Hugging Face model folder")
    check_engine_runtime(runtime)
    check_model(model_dir, on_cpu=runtime.gpus_per_engine == 0)


def check_engine_runtime(runtime: EngineRuntime) -> None:
    """Raises UserError where fields of the runtime contradict each other."""
    if runtime.gpus_per_engine == 0:
        if runtime.tensor_parallel > 1:
            raise UserError(
                "splits layers over GPUs",
                place="engine.tensor_parallel",
                value=runtime.tensor_parallel,
                advice="set engine.gpus_per_engine too.",
            )
        if runtime.enforce_eager is False:
            raise UserError(
                "compilation on the CPU freezes weights into the compiled model, where a swap of weights does not "
                "reach them",
                place="engine.enforce_eager=false",
                value=False,
                advice="leave it out.",
            )
    elif runtime.tensor_parallel > 1 and runtime.gpus_per_engine != runtime.tensor_parallel:
        raise UserError(
            f"{runtime.gpus_per_engine:g} does not match engine.tensor_parallel={runtime.tensor_parallel}",
            place="engine.gpus_per_engine",
            value=runtime.gpus_per_engine,
            advice="an engine needs one GPU for each part of a layer.",
        )


def environment(runtime: EngineRuntime) -> dict[str, str]:
    """Variables that an engine's process must have before torch and vLLM are imported."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in-process: starts in seconds, and batches repeat exactly
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if runtime.gpus_per_engine == 0:
        variables |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several engines may share a node
            "TORCH_COMPILE_DISABLE": "1",  # log-probabilities would compile for seconds
            SHORT_SPIN[0]: os.environ.get(*SHORT_SPIN),
        }
    return variables


def checkpoint_dtype(model_dir: str) -> str:
    """The dtype that the folder's config.json names. (vLLM's `auto` would round float32 to bfloat16.)

    Raises UserError where it names none.
    """
    path = Path(model_dir) / "config.json"
    config = read_json_object(path, "a Hugging Face model folder with its config.json")
    dtype = config.get("dtype") or config.get("torch_dtype")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(
            f"names no usable dtype ({dtype!r})",
            place=path,
            value=dtype,
            advice="set engine.dtype to float32, bfloat16 or float16.",
        )
    return str(dtype)


def engine_arguments(model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> dict[str, Any]:
    """Arguments of `vllm.LLM`."""
    on_cpu = runtime.gpus_per_engine == 0
    arguments: dict[str, Any] = {
        "model": model_dir,
        "dtype": checkpoint_dtype(model_dir) if spec.dtype == "auto" else spec.dtype,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
        "tensor_parallel_size": runtime.tensor_parallel,
        "distributed_executor_backend": "uni" if runtime.tensor_parallel == 1 else "mp",
        "enforce_eager": on_cpu if runtime.enforce_eager is None else runtime.enforce_eager,
        "enable_prefix_caching": True,
        "logprobs_mode": FIRST_TOKENS,
        "max_logprobs": -1,
        "disable_log_stats": True,
        "generation_config": "vllm",  # a folder's own sampling defaults must not change a measurement
    }
    if runtime.max_model_len is not None:
        arguments["max_model_len"] = runtime.max_model_len
    if runtime.max_num_seqs is not None:
        arguments["max_num_seqs"] = runtime.max_num_seqs
    if on_cpu:
        arguments.setdefault("max_num_seqs", CPU_SEQUENCES)
        kv_cache = CPU_KV_CACHE_GIB if runtime.kv_cache_gib is None else runtime.kv_cache_gib
        arguments |= {
            "block_size": CPU_BLOCK_SIZE,
            "kv_cache_memory_bytes": int(kv_cache * GIB),
            # A prompt cut into chunks makes vLLM take back a draw, which the CPU's generators cannot do.
            "enable_chunked_prefill": False,
        }
    else:
        arguments["gpu_memory_utilization"] = runtime.gpu_memory_utilization
        if runtime.kv_cache_gib is not None:
            arguments["kv_cache_memory_bytes"] = int(runtime.kv_cache_gib * GIB)
    return arguments
