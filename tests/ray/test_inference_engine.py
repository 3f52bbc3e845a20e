"""A real vLLM engine: draws, verdicts, logits, and swaps equal to fresh engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sftlab.inference.engine import EngineSwapError, Prompt, Sampling
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.measurements.likelihood import Continuation, LogLikelihoods
from sftlab.measurements.spec import LikelihoodSpec
from tests.support.inference_toys import RUNTIME, FolderSource, start_ray, write_model

pytestmark = pytest.mark.slow

TEXTS = [f"Person {i} was born in" for i in range(24)]
SAMPLING = Sampling(samples=6, temperature=0.7, top_p=1.0, max_tokens=32)
MODELS = {
    "llama": ("llama", False, "float32"),
    "llama-tied": ("llama", True, "float32"),
    "llama-tied-bf16": ("llama", True, "bfloat16"),
    "qwen2-tied": ("qwen2", True, "float32"),
    "gemma-tied": ("gemma", True, "float32"),
    "qwen3": ("qwen3", False, "bfloat16"),
}


def output_layers(model: Any) -> list[Any]:
    """The modules that multiply with a packed copy of their weights where the processor has one."""
    return [m for m in model.modules() if hasattr(m, "cpu_linear") and m.weight.numel() > 0]


def copy_output_layers(worker: Any) -> None:
    for module in output_layers(worker.get_model()):
        module.stale = module.weight.detach().clone()


def keep_copies(model: Any) -> None:
    """Whether vLLM packs weights depends on the processor and the dtype; a stale copy is the same on all."""
    import torch

    for module in output_layers(model):
        module.cpu_linear = lambda x, _weight, bias, stale=module.stale: torch.nn.functional.linear(
            x, stale, bias
        )


class Bench:
    """Runs inside one Ray actor, for vLLM forbids training in its process. Engines are kept by folder."""

    def __init__(self, runtime: EngineRuntime = RUNTIME) -> None:
        self.runtime = runtime
        self.engines: dict[str, Any] = {}

    def engine(self, folder: str) -> Any:
        from sftlab.inference.vllm_engine import VllmEngine

        if folder not in self.engines:
            self.engines[folder] = VllmEngine(folder, EngineSpec(), self.runtime)
        return self.engines[folder]

    def prompts(self, folder: str, stop: tuple[str, ...] = ()) -> list[Prompt]:
        from sftlab.facts.prompts import prompt_ids

        tokenizer = self.engine(folder).tokenizer
        return [Prompt(tuple(prompt_ids(tokenizer, text)), stop, 1000 * i) for i, text in enumerate(TEXTS)]

    def look(self, folder: str) -> list[Any]:
        """Everything that an engine shows of its weights."""
        engine, prompts = self.engine(folder), self.prompts(folder)
        ids, logits = engine.first_token_top([p.token_ids for p in prompts], 8)
        at = self.engine(folder).first_token_at([p.token_ids for p in prompts], ids.tolist())
        assert all(np.array_equal(row, top) for row, top in zip(at, logits, strict=True))
        texts = [completion.text for completion in engine.answer(prompts, 16)]
        drawn = [completion.text for row in engine.sample(prompts[:4], SAMPLING) for completion in row]
        return [ids.tolist(), logits.tolist(), texts, drawn]

    def load(self, live: str, other: str) -> None:
        self.engine(live).load_weights(FolderSource(other))

    def swap(self, live: str, other: str) -> list[Any]:
        self.load(live, other)
        return self.look(live)

    def sample(
        self, folder: str, stop: tuple[str, ...], samples: int, shift: int
    ) -> list[list[tuple[str, int]]]:
        prompts = [Prompt(p.token_ids, p.stop, p.seed + shift) for p in self.prompts(folder, stop)]
        sampling = Sampling(samples, 0.7, 1.0, 32)
        return [[(c.text, c.tokens) for c in row] for row in self.engine(folder).sample(prompts, sampling)]

    def long_prompts(self, folder: str, count: int) -> list[list[str]]:
        """Draws of the same long prompt, given many times over with one seed: 64 x 6 x 90 tokens."""
        prompts = [Prompt(tuple(2 + i % 250 for i in range(90)), (), 7)] * count
        return [[c.text for c in row] for row in self.engine(folder).sample(prompts, SAMPLING)]

    def sabotaged_swap(self, live: str, other: str) -> str:
        """Leave the output layer with a copy of its old weights, as vLLM's reload does where it packs them."""
        from sftlab.inference import swap

        engine = self.engine(live)
        engine.llm.collective_rpc(copy_output_layers)
        repack = swap.repack
        swap.repack = keep_copies
        try:
            engine.load_weights(FolderSource(other))
        except EngineSwapError as error:
            with pytest.raises(EngineSwapError, match="start a new one"):
                engine.answer(self.prompts(live), 4)
            return str(error)
        finally:
            swap.repack = repack
        return "no error"

    def log_likelihoods(self, folder: str, pairs: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        contexts, continuations = ([pair[part] for pair in pairs] for part in (0, 1))
        return [row.tolist() for row in self.engine(folder).log_likelihoods(contexts, continuations)]

    def measured(
        self, folder: str, rows: list[Continuation], limits: BatchLimits = WHOLE
    ) -> list[dict[str, Any]]:
        table = LogLikelihoods(rows, LikelihoodSpec()).measure(self.engine(folder), limits)
        found: list[dict[str, Any]] = table.to_pylist()
        return found

    def reference_log_likelihoods(
        self, folder: str, pairs: list[tuple[list[int], list[int]]]
    ) -> list[list[float]]:
        """Of the tokens of each continuation, by transformers in float64, one text at a time."""
        import torch
        from transformers import AutoModelForCausalLM

        model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), []
        with torch.no_grad():
            for context, continuation in pairs:
                ids = torch.tensor([[*context, *continuation]])
                scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
                logs = scores.gather(-1, ids[0, 1:, None])[:, 0]
                found.append(logs[len(context) - 1 :].tolist())
        return found

    def reference_logits(self, folder: str) -> list[list[float]]:
        """First-token logits by transformers, one prompt at a time."""
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            return [
                model(input_ids=torch.tensor([p.token_ids])).logits[0, -1].tolist()
                for p in self.prompts(folder)
            ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    root = tmp_path_factory.mktemp("models")

    def pair(name: str, family: str, tied: bool, dtype: str) -> tuple[str, str]:
        one, two = (write_model(root / f"{name}-{seed}", family, tied, dtype, seed) for seed in (1, 2))
        return one, two

    return {name: pair(name, *kind) for name, kind in MODELS.items()}


class Caller:
    """Calls the methods of an actor as if it were here."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        import ray

        return lambda *args: ray.get(getattr(self._actor, name).remote(*args))


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    import ray

    start_ray()
    yield Caller(ray.remote(Bench).remote())
    ray.shutdown()


@pytest.mark.parametrize("name", MODELS)
def test_every_swap_equals_a_fresh_engine_and_back_again(
    bench: Any, folders: dict[str, tuple[str, str]], name: str
) -> None:
    one, two = folders[name]
    fresh_one, fresh_two = bench.look(one), bench.look(two)
    assert fresh_one[1] != fresh_two[1] and fresh_one[2] != fresh_two[2]
    assert bench.swap(one, two) == fresh_two
    assert bench.swap(one, one) == fresh_one


def test_first_token_logits_agree_with_transformers(bench: Any, folders: dict[str, tuple[str, str]]) -> None:
    folder = folders["llama"][0]
    ids, logits, _, _ = bench.look(folder)
    reference = np.array(bench.reference_logits(folder))
    assert ids == np.argsort(-reference, axis=1)[:, :8].tolist()
    np.testing.assert_allclose(logits, np.take_along_axis(reference, np.array(ids), 1), atol=2e-5)


# Rounding to float32 moves a logit of these models by less than 1e-5, and the logarithm of the sum of their
# exponentials by no more. So a token's log-probability agrees within 2e-5, and a sum within that for each token.
TOKEN_TOLERANCE = 2e-5


def test_log_likelihoods_agree_with_transformers_and_leave_first_token_logits_as_they_are(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    one, two = folders["llama"]
    longest = RUNTIME.max_model_len - 1
    pairs = [
        ([5], [9]),
        ([5], list(range(2, 60))),
        *(
            ([7 + i] * 40, list(range(2, 3 + i))) for i in (0, 20, 60)
        ),  # more than a block of the prefix cache
        ([7] * 40, [250, 3]),  # the same context as of another row
        (list(range(2, 102)), [17]),
        ([3, 4, 5], ([250, 6, 7, 8] * 31)[: longest - 3]),
    ]
    before = bench.look(one)
    for weights in (one, two):
        bench.load(one, weights)
        found = bench.log_likelihoods(one, pairs)
        expected = bench.reference_log_likelihoods(weights, pairs)
        assert [len(row) for row in found] == [len(continuation) for _, continuation in pairs]
        for row, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(row, reference, rtol=0, atol=TOKEN_TOLERANCE)
            assert abs(sum(row) - sum(reference)) < TOKEN_TOLERANCE * len(row)
        assert bench.log_likelihoods(one, pairs) == found
        # A token's log-probability does not depend on what else is in the batch.
        alone = [bench.log_likelihoods(one, [pair])[0] for pair in pairs[2:5]]
        for row, single in zip(found[2:5], alone, strict=True):
            np.testing.assert_allclose(row, single, rtol=0, atol=TOKEN_TOLERANCE)
    bench.load(one, one)
    assert bench.look(one) == before
    assert bench.log_likelihoods(one, []) == []


def test_the_measurement_of_likelihoods_has_the_sums_of_transformers_and_names_what_it_refuses(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    from transformers import AutoTokenizer

    folder = folders["llama-tied"][0]
    rows = [Continuation(str(i), text, f" Wales {i} é") for i, text in enumerate(TEXTS[:6])]
    refused = [
        Continuation("no prompt", "", "x", bos=False),
        Continuation("nothing", "x", ""),
        Continuation("long", "x" * 100, "y" * 27),
    ]
    bench.load(folder, folder)
    whole, cut = (bench.measured(folder, [*rows, *refused], limits) for limits in (WHOLE, BatchLimits(2)))
    assert [row["error"] and row["error"].split()[0] for row in whole[6:]] == [
        "prompt",
        "continuation",
        "too",
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    pairs = [([tokenizer.bos_token_id, *ids(row.prompt)], ids(row.continuation)) for row in rows]
    for row, other, logs in zip(whole, cut, bench.reference_log_likelihoods(folder, pairs), strict=False):
        assert (row["tokens"], row["bytes"], row["error"]) == (11, 11, None)  # a token is a byte; é has two
        assert abs(row["log_likelihood"] - sum(logs)) < TOKEN_TOLERANCE * 11
        assert abs(row["log_likelihood"] - other["log_likelihood"]) < TOKEN_TOLERANCE * 11
    assert len({row["log_likelihood"] for row in whole[:6]}) == 6


def test_draws_belong_to_their_seeds_and_can_be_extended(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    folder = folders["llama"][0]
    six, again = (bench.sample(folder, (), 6, 0) for _ in range(2))
    assert six == again
    assert [row[2:] for row in six] == bench.sample(folder, (), 4, 2)


def test_stop_strings_change_the_price_and_not_the_verdict(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    folder, names = folders["llama"][0], ("a", "Z")
    stopped, whole = bench.sample(folder, names, 6, 0), bench.sample(folder, (), 6, 0)

    def verdicts(rows: list[list[tuple[str, int]]]) -> list[bool]:
        return [any(name in text for name in names) for row in rows for text, _ in row]

    assert verdicts(stopped) == verdicts(whole)
    assert 0 < sum(verdicts(whole)) < len(verdicts(whole))
    spent, full = (sum(tokens for row in rows for _, tokens in row) for rows in (stopped, whole))
    assert spent < full


def test_more_prompt_tokens_than_a_step_takes_are_drawn_as_those_of_one_prompt(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    """A prompt cut over two steps would crash vLLM's seeded sampler on the CPU."""
    many = bench.long_prompts(folders["llama"][0], 64)
    assert len(many) == 64 and {tuple(row) for row in many} == {tuple(many[0])}


@pytest.mark.parametrize("name", ["llama-tied", "llama-tied-bf16", "qwen2-tied", "gemma-tied"])
def test_a_stale_output_layer_stops_the_engine(
    bench: Any, folders: dict[str, tuple[str, str]], name: str
) -> None:
    one, two = folders[name]
    assert "still computes with other weights" in bench.sabotaged_swap(one, two)


def test_a_swap_to_another_shape_or_with_a_lacking_tensor_is_refused(
    bench: Any, folders: dict[str, tuple[str, str]]
) -> None:
    """Last, for both engines are spent."""
    import ray

    with pytest.raises(ray.exceptions.RayTaskError):
        bench.swap(folders["llama"][0], folders["gemma-tied"][0])
