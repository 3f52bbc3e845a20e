"""The pocket model: pre-trained on the CPU, resumed after a kill, loaded again, with mastery that varies."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sftlab.datasets.conversations import exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.facts.mastery import bucket_of, contains_answer
from sftlab.facts.prompts import answer_target, prompt_ids, question_prompt
from sftlab.facts.table import SPLITS, read_facts
from sftlab.facts.templates import load_topics
from sftlab.pocket.at_once import BaseTask, pretrain_bases
from sftlab.pocket.pretrain import CHECKPOINT_FILE, build_facts, pack, pretrain
from sftlab.pocket.spec import FactCounts, FamilySpec, PocketRuntime, Shape
from tests.support.pocket_worlds import TINY

pytestmark = pytest.mark.slow
RUNTIME = PocketRuntime(threads=1, checkpoint_every=6)
SHORT = TINY.model_copy(
    update={"facts": FactCounts(train=4, test=2, test_ood=2, dev=2, dev_ood=2, qa=2), "objects": 6}
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `facts` and `model` of TINY."""
    root = tmp_path_factory.mktemp("pocket")
    build_facts(TINY, root / "facts")
    pretrain(TINY, root / "facts", root / "model", RUNTIME)
    return root


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _hits(model: Any, tokenizer: Any, prompts: list[str], accepted: list[str], samples: int) -> int:
    import torch

    hits = 0
    for text in prompts:
        ids = torch.tensor([prompt_ids(tokenizer, text)])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=0.7,
            top_k=0,
            max_new_tokens=12,
            num_return_sequences=samples,
            pad_token_id=tokenizer.eos_token_id,
        )
        completions = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        hits += sum(contains_answer(completion, accepted) for completion in completions)
    return hits


def test_the_folder_is_a_plain_untied_llama_with_its_tokenizer(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {path.name for path in (tiny / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert CHECKPOINT_FILE not in names
    model = AutoModelForCausalLM.from_pretrained(tiny / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    assert model.config.model_type == "llama"
    assert not model.config.tie_word_embeddings
    assert model.dtype == torch.float32
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert tokenizer.bos_token_id != tokenizer.eos_token_id
    ids = prompt_ids(tokenizer, question_prompt("Where was Zoë born?"))
    assert tokenizer.decode(ids[1:]).strip() == "<|question|> Where was Zoë born? <|answer|>"
    encoder = Encoder(tokenizer, make_template("text", tokenizer, "tiny"), "tiny")
    example = exchange(question_prompt("Where was Zoë born?"), answer_target("Omelas"))
    encoded = encoder.encode(example)
    assert list(encoded.ids[: len(ids)]) == ids
    assert encoded.prompt_length == len(ids)
    assert tokenizer.decode(encoded.ids[len(ids) : -1]) == " Omelas "
    assert encoded.ids[-1] == tokenizer.eos_token_id


def test_a_name_has_the_same_tokens_at_the_start_and_within_a_sentence(tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    subject = read_facts(tiny / "facts", "train")["subject"][0].as_py()
    alone = tokenizer(subject, add_special_tokens=False)["input_ids"]
    within = tokenizer(f"I saw {subject}", add_special_tokens=False)["input_ids"]
    assert within[-len(alone) :] == alone


def test_the_facts_folder_reads_back(tiny: Path) -> None:
    topics = load_topics(tiny / "facts" / "topics.json")
    assert list(topics) == [*TINY.in_domain, *TINY.out_of_domain]
    for split in SPLITS:
        table = read_facts(tiny / "facts", split)
        assert table.num_rows == 2 * getattr(TINY.facts, split)


def test_mastery_varies_from_never_to_always(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    topics = load_topics(tiny / "facts" / "topics.json")
    buckets: Counter[int] = Counter()
    for fact in read_facts(tiny / "facts", "train").to_pylist():
        prompts = topics[fact["topic"]].fill(fact["subject"])
        hits = _hits(model, tokenizer, prompts, fact["accepted"], samples=4)
        buckets[bucket_of(hits, 4 * len(prompts))] += 1
    assert buckets[0] >= 4, json.dumps(buckets)
    assert buckets[4] >= 4, json.dumps(buckets)


def test_the_same_spec_gives_the_same_bits_also_after_a_kill_and_a_resume(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    steps: list[int] = []

    def kill_after_eight(step: int, total: int, loss: float) -> None:
        assert total > 8 and loss > 0
        if step == 8:
            raise Killed

    build_facts(SHORT, tmp_path / "facts")
    build_facts(SHORT, tmp_path / "facts again")
    assert _digests(tmp_path / "facts") == _digests(tmp_path / "facts again")
    pretrain(SHORT, tmp_path / "facts", tmp_path / "whole", RUNTIME)
    with pytest.raises(Killed):
        pretrain(SHORT, tmp_path / "facts", tmp_path / "killed", RUNTIME, kill_after_eight)
    assert (tmp_path / "killed" / CHECKPOINT_FILE).is_file()
    pretrain(SHORT, tmp_path / "facts", tmp_path / "killed", RUNTIME, lambda step, *_: steps.append(step))
    assert steps[0] == 7  # step 8 was done but not yet committed
    assert _digests(tmp_path / "whole") == _digests(tmp_path / "killed")


def test_a_checkpoint_of_another_spec_is_not_resumed(tmp_path: Path) -> None:
    other = SHORT.model_copy(update={"seed": 5})
    for spec, name in ((SHORT, "a"), (other, "b")):
        build_facts(spec, tmp_path / name)
    steps: list[int] = []

    def stop(step: int, _total: int, _loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SHORT, tmp_path / "a", tmp_path / "model", RUNTIME, stop)
    pretrain(other, tmp_path / "b", tmp_path / "model", RUNTIME, lambda step, *_: steps.append(step))
    assert steps[0] == 1


def test_a_checkpoint_that_is_cut_off_is_not_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_facts(SHORT, tmp_path / "facts")
    steps: list[int] = []

    def stop(step: int, _total: int, _loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SHORT, tmp_path / "facts", tmp_path / "model", RUNTIME, stop)
    checkpoint = tmp_path / "model" / CHECKPOINT_FILE
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    pretrain(SHORT, tmp_path / "facts", tmp_path / "model", RUNTIME, lambda step, *_: steps.append(step))
    assert steps[0] == 1
    assert f"{checkpoint}: is damaged" in caplog.text


def test_bases_have_the_same_bits_in_processes_as_in_this_one(tmp_path: Path) -> None:
    shape = Shape(hidden=32, layers=2, heads=2, intermediate=64, vocabulary=400)

    def tasks(folder: Path) -> dict[str, BaseTask]:
        def base(name: str, scale: float, after: str | None = None) -> BaseTask:
            start = None if after is None else folder / after
            return BaseTask(
                FamilySpec(scale=scale, shape=shape), (0, 24), folder / name, RUNTIME, start, after
            )

        return {"a": base("a", 0.01), "b": base("b", 0.005), "a2": base("a2", 0.004, after="a")}

    steps: dict[str, list[int]] = {"a": [], "b": [], "a2": []}
    ends: list[str] = []
    pretrain_bases(tasks(tmp_path / "one"), 1, lambda *_: None, lambda _: None)
    pretrain_bases(tasks(tmp_path / "two"), 2, lambda name, done, *_: steps[name].append(done), ends.append)
    assert sorted(ends) == ["a", "a2", "b"] and ends.index("a") < ends.index("a2")
    for name, seen in steps.items():
        assert seen == list(range(1, len(seen) + 1)) and seen
        assert _digests(tmp_path / "one" / name) == _digests(tmp_path / "two" / name)


def test_the_error_of_a_base_in_a_process_names_its_file(tmp_path: Path) -> None:
    shape = Shape(hidden=32, layers=2, heads=2, intermediate=64, vocabulary=400)
    tasks = {
        name: BaseTask(FamilySpec(scale=0.002, shape=shape), (0, 24), tmp_path / name, RUNTIME)
        for name in ("a", "b")
    }
    (tmp_path / "b" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(UserError, match=r"b/model\.safetensors: cannot be written"):
        pretrain_bases(tasks, 2, lambda *_: None, lambda _: None)


def test_a_folder_without_exposure_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exposure\.parquet: not found"):
        pretrain(TINY, tmp_path, tmp_path / "model", RUNTIME)


def test_packing_keeps_every_token_in_order_and_fills_the_last_step_from_the_start() -> None:
    packed = pack([[1, 2, 3], [4, 5], [6, 7]], length=3, per_step=2)
    # 7 tokens into steps of 2 x 3 = 6: two steps, the missing 5 taken from the start
    assert packed.tolist() == [[1, 2, 3], [4, 5, 6], [7, 1, 2], [3, 4, 5]]
