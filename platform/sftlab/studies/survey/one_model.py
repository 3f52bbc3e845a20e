"""Measures one model outside of any survey: for `sftlab rank` and `sftlab ask`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sftlab.datasets.rendered import Template
from sftlab.datasets.spec import TemplateSpec
from sftlab.execution.progress import Progress
from sftlab.execution.runtime import Runtime
from sftlab.inference.spec import EngineSpec
from sftlab.inference.vllm_engine import check_engine_runtime

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.measurement import Measurement


def open_model(folder: Path, template: TemplateSpec, runtime: Runtime) -> tuple[Any, Template]:
    """The tokenizer of a model that can be served, and the template for it. Raises UserError where it cannot be."""
    from sftlab.datasets.templates import make_template
    from sftlab.inference.model_check import check_model
    from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
    from sftlab.weights.shards import Checkpoint

    check_engine_runtime(runtime.engine)
    check_model(folder, on_cpu=not runtime.engine.gpus_per_engine)
    with Checkpoint.open(folder):
        tokenizer = load_tokenizer(folder)
    check_tokenizer(folder, tokenizer, embedding_rows(folder))
    return tokenizer, make_template(template, tokenizer, str(folder))


def context(folder: Path, runtime: Runtime) -> int | None:
    """Tokens of the longest text that the model takes here; None where neither config.json nor the runtime says."""
    from sftlab.inference.model_check import context_length

    known = [n for n in (context_length(folder), runtime.engine.max_model_len) if n is not None]
    return min(known) - 1 if known else None  # an engine that scores a text writes one token after it


def measure(
    folder: Path,
    measurements: Mapping[str, Measurement],
    runtime: Runtime,
    progress: Progress,
    dtype: str = "auto",
) -> dict[str, pa.Table]:
    """The tables of measurements of one model, by name, on an engine that is started for this call."""
    import pyarrow.parquet as pq

    from sftlab.cluster.session import ray_cluster
    from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate_with_engines
    from sftlab.weights.restoration import ModelSource

    model = str(folder.resolve())  # workers have other working folders
    with TemporaryDirectory(prefix="sftlab-") as scratch, progress.bar(f"asking {folder.name}") as bar:
        root = Path(scratch)
        files = {f"{number}.parquet": how for number, how in enumerate(measurements.values())}
        item = EvaluationItem("model", ModelSource(model), files, root / "tables")
        spec = EngineSpec.model_validate({"dtype": dtype})
        request = EvaluationRequest([item], model, spec, root / "session", root / "damaged")
        cluster = ray_cluster(
            runtime.engine_bundles, runtime.gpu_wait_minutes, runtime.logical_cpus, progress.say
        )
        with cluster:
            evaluate_with_engines(
                request,
                runtime.engine,
                lambda p: bar.update(p.items_done, p.items, f"{p.rows_per_second:,.0f} rows/s"),
            )
        return {
            name: pq.read_table(item.output_dir / file)
            for name, file in zip(measurements, files, strict=True)
        }
