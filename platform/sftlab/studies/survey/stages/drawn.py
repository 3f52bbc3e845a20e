"""Stage 2: the training sets, drawn by seed from instruction sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sftlab.datasets.conversations import Conversation, exchange
from sftlab.datasets.draw import draw, together, within
from sftlab.datasets.encode import Encoder
from sftlab.pocket.skill_data import instruction_set
from sftlab.pocket.skills import skill_world
from sftlab.studies.survey.build import SurveyBuild

FILE = "train.parquet"
Fits = Callable[[Conversation], bool]


def build_drawn(build: SurveyBuild) -> None:
    """Draw and write every training set that is missing, in the order in which it is trained on."""
    import pyarrow.parquet as pq

    from sftlab.datasets.examples import examples_table

    plan = build.plan
    members_of = {step.id: (step, members, size) for (members, size), step in plan.drawn.items()}
    missing = [found for found in members_of.values() if build.missing(found[0])]
    fits = _fits(build) if missing and plan.spec.data.files else None
    for step, members, size in missing:
        examples = _training_set(build, members, size, fits)
        folder = build.path(step)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(examples_table(examples), folder / FILE)
        build.commit(step)


def _training_set(
    build: SurveyBuild, members: Sequence[str], size: int, fits: Fits | None
) -> list[Conversation]:
    """One set in the order of its draw, or several together in a seeded order."""
    sets = {name: _drawn(build, name, size, fits) for name in members}
    if len(members) == 1:
        return sets[members[0]]
    return together(sets, build.plan.spec.data.draw.seed)


def _drawn(build: SurveyBuild, name: str, size: int, fits: Fits | None) -> list[Conversation]:
    spec = build.plan.spec
    file = spec.data.files.get(name)
    if file is None:
        rows = instruction_set(skill_world(spec.world.seed, spec.world.people), name, size)
        return [exchange(row["prompt"], row["response"], where=name) for row in rows]
    from sftlab.datasets.source import open_data

    return list(draw(open_data(file).conversations(), size, spec.data.draw.seed, fits, file.source).examples)


def _fits(build: SurveyBuild) -> Fits | None:
    """Whether an example has at most `max_tokens` tokens under every tokenizer of `fit`."""
    from sftlab.datasets.templates import make_template
    from sftlab.inference.tokenizer_check import load_tokenizer

    spec = build.plan.spec
    if spec.data.draw.max_tokens is None:
        return None
    encoders = []
    for base in spec.data.draw.fit:
        tokenizer = load_tokenizer(build.base_folder(base))
        encoders.append(Encoder(tokenizer, make_template(spec.template, tokenizer, base), base))
    return within(encoders, spec.data.draw.max_tokens)
