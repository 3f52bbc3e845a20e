"""Other weights into a live vLLM model, and the proof that it computes with them.

On the CPU vLLM multiplies with packed copies of the weights. A reload can leave such a copy behind (it does for
a tied output layer), and comparing parameters does not show it. So the proof reads the *effective* weights:
a linear layer applied to the unit vector e_j returns column j of the matrix that it really multiplies with, and
without rounding, for every other product is zero. Those columns are compared with the same columns of the
tensors that were streamed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.inference.engine import EngineSwapError, WeightSource
from sftlab.store.record import Damaged

if TYPE_CHECKING:
    import torch

# Columns read back of every matrix, drawn again for every swap; a matrix with no more is compared whole.
PROBED_COLUMNS = 256
CODE_ERRORS = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    AssertionError,
    NotImplementedError,
)


def swap_in_worker(worker: Any, source: WeightSource, swap: int) -> tuple[str, ...] | None:
    """Runs in every vLLM worker. Returns what is wrong where the live model does not follow `source`, else None.

    With tensor parallelism a worker holds parts of matrices, and compares these (see `Share`). If it is another
    process, errors would arrive without their type; what they hold goes back in place of them, for `raise_failure`.
    An error of vLLM's code for this architecture is a failed swap too; errors of the machine pass.
    """
    import torch
    from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

    share = Share(get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
    model = worker.get_model()
    dtype = worker.model_runner.model_config.dtype
    sketch = Sketch(dtype, swap, transposed_weights(worker.model_runner.model_config.hf_config))
    with torch.no_grad():
        try:
            worker.model_runner.reload_weights(weights_iterator=sketch.watch(source.tensors()))
            repack(model)
            verify(model, sketch, share)
        except EngineSwapError as error:
            return (str(error),)
        except Damaged as error:
            return str(error.folder), error.what
        except CODE_ERRORS as error:
            return (f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",)
    return None


def transposed_weights(config: Any) -> frozenset[str]:
    """Names of the matrices that transformers stores with their inputs in rows (Conv1D, as GPT-2 has them).

    config: the model's configuration. Without the prefix of the backbone, which a checkpoint may lack.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (*CODE_ERRORS, ImportError):  # vLLM serves what transformers does not know
        return frozenset()
    prefix = f"{model.base_model_prefix}."
    found = [name for name, module in model.named_modules() if isinstance(module, Conv1D)]
    return frozenset(f"{name.removeprefix(prefix)}.weight" for name in found)


def raise_failure(found: Sequence[Sequence[str] | None]) -> None:
    """Raises the failure of the first worker that has one: EngineSwapError, or Damaged."""
    for failure in found:
        if failure is not None and len(failure) == 2:
            folder, what = failure
            raise Damaged(Path(folder), what)
        if failure is not None:
            raise EngineSwapError(failure[0])


def repack(model: Any) -> None:
    """Pack the output layer again from its parameter; a tied one is left stale by vLLM's reload on the CPU."""
    for module in model.modules():
        if hasattr(module, "cpu_linear") and module.weight.numel() > 0:
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


@dataclass(frozen=True)
class Share:
    """Which part of a divided matrix a worker holds: that of `rank` among `size` workers.

    vLLM divides the rows of a matrix, of fused ones of each by itself; or its columns. Where there are fewer heads of
    keys and values than workers, several workers hold the same rows.
    """

    rank: int = 0
    size: int = 1

    def rows(self, parts: Sequence[torch.Tensor], module: Any) -> list[torch.Tensor]:
        """The worker's rows of the tensors that `module` holds one above the other."""
        if self.size == 1:
            return list(parts)
        if hasattr(module, "num_embeddings_per_partition"):  # padded in the end
            (part,), count = parts, module.num_embeddings_per_partition
            return [part[self.rank * count : (self.rank + 1) * count]]
        counts = getattr(module, "output_partition_sizes", [len(part) for part in parts])
        if len(counts) != len(parts):
            raise EngineSwapError("tensors that are fused in the model's files cannot be checked by parts.")
        starts = [self.rank * (len(p) // n) // self.size * n for p, n in zip(parts, counts, strict=True)]
        return [part[at : at + n] for part, at, n in zip(parts, starts, counts, strict=True)]

    def columns(self, probed: torch.Tensor, width: int, whole: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the probed columns of a matrix of width `whole` the worker's part of `width` has; and where."""
        start = self.rank * width if whole > width else 0
        mine = (probed >= start) & (probed < start + width)
        return mine, probed[mine] - start


ALONE = Share()


class Sketch:
    """What to expect of the live model: of every streamed tensor its probed columns, or a vector as it is."""

    def __init__(self, dtype: torch.dtype, seed: int, transposed: frozenset[str] = frozenset()) -> None:
        """transposed: the matrices that are stored with their inputs in rows; their ends of names."""
        self.dtype = dtype
        self.seed = seed
        self.parts: dict[str, torch.Tensor] = {}
        self._transposed = tuple(f".{name}" for name in transposed)

    def watch(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Pass tensors through, keeping a sketch of each."""
        for name, tensor in tensors:
            upright = tensor.t() if f".{name}".endswith(self._transposed) and tensor.ndim == 2 else tensor
            kept = upright if tensor.ndim < 2 else upright[..., self.columns(upright.shape[-1])]
            self.parts[name] = kept.to(self.dtype, copy=True)
            yield name, tensor

    def columns(self, width: int) -> torch.Tensor:
        """Which columns of a matrix of this width are probed: int64, rising."""
        import torch

        if width <= PROBED_COLUMNS:
            return torch.arange(width)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(width, generator=generator)[:PROBED_COLUMNS].sort().values


def verify(model: Any, sketch: Sketch, share: Share = ALONE) -> None:
    """Compare every parameter and every effective matrix of the live model, or of a worker's share, with the sketch.

    Raises EngineSwapError naming the first that differs, has no source, or cannot be read back.
    """
    import torch

    names = Names(model, sketch.parts)
    owners = {
        module.weight.data_ptr(): f"{name}.weight"
        for name, module in reversed(list(model.named_modules()))
        if getattr(module, "weight", None) is not None and module.weight.numel() > 0
    }
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            full_name = f"{name}.{key}"
            parts = names.parts(full_name)
            if not parts and parameter.numel() > 0:  # tied: loaded under the first owner's name
                parts = names.parts(owners.get(parameter.data_ptr(), full_name))
            if not parts:
                raise EngineSwapError(f"{full_name}: the swapped-in model has no tensor for it.")
            expected = torch.cat(share.rows(parts, module))
            _compare(full_name, module, parameter, expected, sketch, share)


class Names:
    """The streamed tensors of each live parameter: by the same name, or by the names that vLLM itself maps.

    vLLM renames what an architecture stores under other names, and fuses matrices; its models carry both tables. A
    prefix that only one side has (of the backbone, or of vLLM's wrapper around a model of transformers) is left out.
    """

    def __init__(self, model: Any, streamed: Mapping[str, torch.Tensor]) -> None:
        self._streamed = streamed
        self._fused = getattr(model, "packed_modules_mapping", {})
        self._mapped: dict[str, list[tuple[Any, str]]] = {}
        mapper = getattr(model, "hf_to_vllm_mapper", None)
        for name in streamed:
            found = None if mapper is None else mapper._map_name_with_shard(name)
            if found is not None:
                target, shard = found
                for one in shard if isinstance(shard, list) else [shard]:
                    self._mapped.setdefault(target, []).append((one, name))
        self._without_prefix = {name.partition(".")[2]: name for name in streamed}

    def parts(self, name: str) -> list[torch.Tensor]:
        """The tensor of a parameter, or the tensors fused into it, one above the other; none where one lacks."""
        if name in self._streamed:
            return [self._streamed[name]]
        path, _, key = name.rpartition(".")
        parent, _, leaf = path.rpartition(".")
        fused = [f"{parent}.{part}.{key}" for part in self._fused.get(leaf, [])]
        if fused and all(part in self._streamed for part in fused):
            return [self._streamed[part] for part in fused]
        if name in self._mapped:
            ordered = sorted(self._mapped[name], key=lambda found: _shard_order(found[0]))
            return [self._streamed[stored] for _, stored in ordered]
        stored = name.partition(".")[2]
        if stored not in self._streamed:
            stored = self._without_prefix.get(name, "")
        return [self._streamed[stored]] if stored in self._streamed else []


def _shard_order(shard: Any) -> int:
    """The position of a part that is fused: vLLM numbers parts, or calls them q, k and v."""
    return {"q": 0, "k": 1, "v": 2, None: 0}.get(shard, shard if isinstance(shard, int) else 0)


def _compare(
    name: str, module: Any, parameter: torch.Tensor, expected: torch.Tensor, sketch: Sketch, share: Share
) -> None:
    if expected.ndim < 2:
        _same(name, parameter, expected)
        return
    if not name.endswith(".weight") or parameter.ndim > 2:
        raise EngineSwapError(
            f"{name}: this kind of layer cannot be checked after a swap; start a new engine."
        )
    width = _input_width(module)
    whole = module.input_size if isinstance(getattr(module, "input_size", None), int) else width
    mine, columns = share.columns(sketch.columns(whole), width, whole)
    expected = expected[:, mine]
    if parameter.numel() > 0:
        _same(name, parameter[:, columns.to(parameter.device)], expected)
    if hasattr(module, "cpu_linear") or parameter.numel() == 0:
        _same(f"{name} (packed)", _effective_columns(module, columns, width, sketch.dtype), expected)


def _input_width(module: Any) -> int:
    """Length of the vectors that a linear or embedding layer's matrix multiplies."""
    for attribute in ("input_size_per_partition", "embedding_dim", "input_size"):
        if isinstance(getattr(module, attribute, None), int):
            return int(getattr(module, attribute))
    return int(module.weight.shape[1])


def _effective_columns(module: Any, columns: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Columns of the matrix that the layer really multiplies with, read through unit vectors."""
    import torch

    units = torch.zeros(len(columns), width, dtype=dtype)
    units[torch.arange(len(columns)), columns] = 1
    product: torch.Tensor = module.quant_method.apply(module, units, bias=None)
    return product.t()


def _same(name: str, live: torch.Tensor, expected: torch.Tensor) -> None:
    """Rows beyond the expected ones are vLLM's padding of the vocabulary."""
    import torch

    live = live.detach().to("cpu", torch.float32)
    if (
        live.ndim != expected.ndim
        or live.shape[0] < expected.shape[0]
        or live.shape[1:] != expected.shape[1:]
    ):
        raise EngineSwapError(f"{name}: live shape {tuple(live.shape)}, swapped-in {tuple(expected.shape)}.")
    wanted = expected.to(torch.float32)
    if not torch.equal(live[: len(wanted)], wanted):
        worst = (live[: len(wanted)] - wanted).abs().max().item()
        raise EngineSwapError(
            f"{name}: the live model still computes with other weights after a swap (largest difference "
            f"{worst:.3g}). Its answers would be another model's; start a new engine for this model."
        )
