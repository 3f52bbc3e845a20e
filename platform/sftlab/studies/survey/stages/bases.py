"""Stage 1: the bases of the pocket world, pre-trained on this machine's processors."""

from __future__ import annotations

from sftlab.studies.survey.build import SurveyBuild


def build_bases(build: SurveyBuild) -> None:
    """Pre-train every base that is missing, after the one that it continues."""
    from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
    from sftlab.pocket.families import family_documents
    from sftlab.pocket.pretrain import pretrain_on
    from sftlab.pocket.skills import skill_world

    plan = build.plan
    world = skill_world(plan.spec.world.seed, plan.spec.world.people)
    for name, step in plan.bases.items():
        if not build.missing(step):
            continue
        base, folder = plan.spec.bases.pocket[name], build.path(step) / "model"
        start = None if base.continues is None else build.read(plan.bases[base.continues], "model")
        documents = family_documents(world, base)
        with build.progress.bar(f"pre-training {name}") as bar:

            def report(done: int, total: int, loss: float) -> None:
                bar.update(done, total, f"loss {loss:.3f}")

            pretrain_on(documents, base, folder, build.runtime.pocket, report, start)
        check_tokenizer(folder, load_tokenizer(folder), embedding_rows(folder))
        build.commit(step)
