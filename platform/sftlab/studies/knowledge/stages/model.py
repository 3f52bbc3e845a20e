"""Stage 2: the pocket model, pre-trained on its facts."""

from __future__ import annotations

from sftlab.studies.knowledge.build import KnowledgeBuild


def build_model(build: KnowledgeBuild) -> None:
    """Pre-train the pocket model on this machine's processors."""
    from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
    from sftlab.pocket.pretrain import pretrain

    step, spec = build.plan.model, build.plan.spec.pocket
    assert step is not None and spec is not None
    folder = build.path(step) / "model"
    with build.progress.bar("pre-training") as bar:
        pretrain(
            spec,
            build.read(build.plan.facts),
            folder,
            build.runtime.pocket,
            progress=lambda done, total, loss: bar.update(done, total, f"loss {loss:.3f}"),
        )
    check_tokenizer(folder, load_tokenizer(folder), embedding_rows(folder))
    build.commit(step)
