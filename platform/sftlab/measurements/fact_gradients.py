"""Gradients of facts at the base model, one fact at a time: sums over parts of the model, never a stored gradient.

The gradient of a fact is that of the summed cross-entropy of its answer tokens. A step of fine-tuning adds up the
gradients of its facts and divides by their answer tokens, so this is what a fact adds to a step. The model is in
float32 and without dropout. Memory holds the model, one gradient, and one tensor the size of the model for each
direction that gradients are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.weights.regions import OUTSIDE, place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from sftlab.training.batches import Example
    from sftlab.training.spec import SFTSpec
    from sftlab.weights.cut import Cut

    Floats = npt.NDArray[np.float64]
    Direction = Mapping[str, torch.Tensor]
    """Parameter name -> a tensor of its shape."""

KNOWN, UPDATE, SHUFFLED, TRAINING = "known", "update", "shuffled", "training"
BATCH = 8  # facts of one backward pass where their gradients are added up anyway
SHUFFLE_SEED = 0
_LAST = 1_000_000  # behind every layer


@dataclass(frozen=True)
class Part:
    """One module of one layer, with its number of weights; layer: a number as text, or OUTSIDE."""

    layer: str
    module: str
    weights: int


@dataclass(frozen=True)
class Products:
    """Sums over the weights of each part, for each fact.

    losses: cross-entropy of the answer in nats, [facts]. squared: of g^2, [facts, parts]. along: by direction v, of
    g v, [facts, parts]. sizes: by direction, of v^2, [parts]. within: of g^2 over the chosen weights, [facts, parts],
    and chosen: their number, [parts]; without a choice both are zero.
    """

    parts: Sequence[Part]
    losses: Floats
    squared: Floats
    along: Mapping[str, Floats]
    sizes: Mapping[str, Floats]
    within: Floats
    chosen: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A tuned model and its fine-tuning: its folder, the training set, the settings, and the cut of interest."""

    folder: str
    train_file: str
    spec: SFTSpec
    cut: Cut


@dataclass(frozen=True)
class GradientJob:
    """What one worker measures. texts: prompt and target of each fact. known: rows whose mean gradient is a direction.

    trained: adds the directions UPDATE, SHUFFLED and TRAINING, and the weights of its cut as the chosen ones.
    """

    base: str
    texts: Sequence[tuple[str, str]]
    known: Sequence[int] = ()
    trained: Trained | None = None
    threads: int = 1
    gpu: bool = False


@dataclass
class Directions:
    """What gradients are compared with; `chosen` marks weights: bool of the parameters' shapes."""

    vectors: dict[str, Direction] = field(default_factory=dict)
    chosen: Direction = field(default_factory=dict)


def measure(job: GradientJob) -> Products:
    """Load the base model and measure the gradients of a job's facts. Raises UserError for a bad model or tokenizer."""
    import torch

    from sftlab.datasets.conversations import exchange
    from sftlab.store.mirror import pull
    from sftlab.training.batches import Example
    from sftlab.training.data import load_encoder
    from sftlab.training.deepspeed import repeat_bits
    from sftlab.training.hf_model import load_model
    from sftlab.training.spec import SFTSpec

    torch.set_num_threads(job.threads)
    repeat_bits(job.gpu)
    base = pull(Path(job.base))
    model = load_model(base, SFTSpec(precision="fp32"), None).to("cuda" if job.gpu else "cpu").eval()
    encoded = load_encoder(job.base, "text").encode_all([exchange(*texts) for texts in job.texts])
    examples = [Example.of(found.ids, found.loss) for found in encoded]
    directions = Directions() if job.trained is None else trained_directions(model, base, job.trained)
    if job.known:
        weights = [1 / len(job.known)] * len(job.known)
        directions.vectors[KNOWN] = summed_gradient(model, [examples[row] for row in job.known], weights)
    return products(model, examples, directions)


def trained_directions(model: Any, base: Path, trained: Trained) -> Directions:
    """The update of a tuned model, the same shuffled within each stored tensor, minus the sum of the gradients of its
    training, and the weights of its cut.

    The sum has every fact with the rate of its step by the answer tokens of the batch: the update of gradient descent
    if gradients stayed as they are at the base model.
    """
    import torch

    from sftlab.store.mirror import pull
    from sftlab.training.data import encode_file, load_encoder
    from sftlab.training.stored_tensors import assembled, by_parameter, homes
    from sftlab.weights.delta_folder import open_tuned
    from sftlab.weights.pairs import check_pair
    from sftlab.weights.selection import is_restored_mask
    from sftlab.weights.shards import Checkpoint
    from sftlab.weights.shuffle import shuffled

    update: dict[str, torch.Tensor] = {}
    null: dict[str, torch.Tensor] = {}
    chosen: dict[str, torch.Tensor] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with Checkpoint.open(base) as old, open_tuned(pull(Path(trained.folder)), base) as new:
        known = set(check_pair(old, new))

        def change(name: str) -> torch.Tensor:
            before = old.read(name).float()
            return new.read(name).float() - before if name in known else torch.zeros_like(before)

        def chance(name: str) -> torch.Tensor:
            moved = change(name)
            mixed = shuffled(SHUFFLE_SEED, name, moved.numpy().ravel())
            return torch.from_numpy(mixed).reshape(moved.shape)

        def mark(name: str) -> torch.Tensor:
            if name not in known:
                return torch.zeros(old.shape(name), dtype=torch.bool)
            return is_restored_mask(name, old.read(name), new.read(name), trained.cut)

        for parameter, parts in by_parameter(homes(base, model)):
            name = names[id(parameter)]
            for found, read in ((update, change), (null, chance), (chosen, mark)):
                found[name] = assembled(parameter, parts, read).to(parameter.device)
    examples, _ = encode_file(
        load_encoder(str(base), "text"), str(pull(Path(trained.train_file))), trained.spec.max_length
    )
    steps = [-weight for weight in step_weights(examples, trained.spec)]
    training = summed_gradient(model, examples, steps)
    return Directions({UPDATE: update, SHUFFLED: null, TRAINING: training}, chosen)


def step_weights(examples: Sequence[Example], spec: SFTSpec) -> list[float]:
    """Of each fact the sum, over the steps that it is in, of the rate by the answer tokens of the batch."""
    from sftlab.training.batches import learning_rate, step_batches

    batches, weights = step_batches(len(examples), spec), [0.0] * len(examples)
    for step, batch in enumerate(batches):
        share = learning_rate(spec, step, len(batches)) / sum(examples[row].answer_tokens for row in batch)
        for row in batch:
            weights[row] += share
    return weights


def summed_gradient(
    model: Any, examples: Sequence[Example], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """The sum over examples of weight times gradient."""
    import torch

    model.zero_grad(set_to_none=True)
    for start in range(0, len(examples), BATCH):
        part = slice(start, start + BATCH)
        weighted_loss(model, examples[part], weights[part]).backward()
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    return found


def weighted_loss(model: Any, examples: Sequence[Example], weights: Sequence[float]) -> torch.Tensor:
    """The sum over examples of weight times summed cross-entropy of the answer tokens, in float32."""
    import torch

    from sftlab.training.batches import IGNORED, answer_rows, collate

    tensors = {name: tensor.to(model.device) for name, tensor in collate(examples, pad_id=0).items()}
    labels = tensors.pop("labels")
    rows = answer_rows(model(**tensors).logits, labels)
    wanted = labels[:, 1:] != IGNORED
    losses = torch.nn.functional.cross_entropy(rows, labels[:, 1:][wanted], reduction="none")
    each = torch.tensor(weights, dtype=losses.dtype, device=losses.device)[:, None].expand(wanted.shape)[
        wanted
    ]
    return (losses * each).sum()


def products(model: Any, examples: Sequence[Example], directions: Directions) -> Products:
    """The sums of every example's gradient by itself."""
    import numpy as np

    parts, column = parts_of(model)
    vectors, chosen = directions.vectors, directions.chosen
    shape = len(examples), len(parts)
    squared, within = np.zeros(shape), np.zeros(shape)
    along = {name: np.zeros(shape) for name in vectors}
    losses = np.zeros(len(examples))
    for row, example in enumerate(examples):
        model.zero_grad(set_to_none=True)
        loss = weighted_loss(model, [example], [1.0])
        loss.backward()
        losses[row] = loss.item()
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            gradient, at = parameter.grad.flatten(), column[name]
            squared[row, at] += gradient.dot(gradient).item()
            for direction, vector in vectors.items():
                along[direction][row, at] += gradient.dot(vector[name].flatten()).item()
            if name in chosen:
                within[row, at] += (gradient * chosen[name].flatten()).square().sum().item()
    model.zero_grad(set_to_none=True)
    sizes = {name: np.zeros(len(parts)) for name in vectors}
    marked = np.zeros(len(parts), np.int64)
    for name, at in column.items():
        for direction, vector in vectors.items():
            sizes[direction][at] += vector[name].square().sum().item()
        marked[at] += int(chosen[name].sum()) if name in chosen else 0
    return Products(parts, losses, squared, along, sizes, within, marked)


def parts_of(model: Any) -> tuple[list[Part], dict[str, int]]:
    """The modules of a model by layer, those outside the layers last, and the number of each parameter's module."""
    weights: dict[tuple[int, str], int] = {}
    keys = {}
    for name, parameter in model.named_parameters():
        at = place(name)
        keys[name] = key = (_LAST if at.layer is None else at.layer, at.module)
        weights[key] = weights.get(key, 0) + parameter.numel()
    order = sorted(weights)
    parts = [
        Part(OUTSIDE if layer == _LAST else str(layer), module, weights[layer, module])
        for layer, module in order
    ]
    return parts, {name: order.index(key) for name, key in keys.items()}
