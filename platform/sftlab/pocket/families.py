"""The pre-training text of a base of the pocket survey.

Families differ in the seed of their text, in how much of it is about facts and about numbers, in shape and
vocabulary, and in the people that only they are shown. A base that continues another one is trained on text that is
mostly in the second language.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from random import Random

from sftlab.pocket.skills import RELATIONS, SENTENCES, SKILLS, Scene, SkillWorld, Task
from sftlab.pocket.spec import FamilySpec

# Ways to write a question with its answer; none is the template of fine-tuning, which so remains to be learnt.
FORMS = (
    "Question : {q} Answer : {a}",
    "Q : {q} A : {a}",
    "{q} {a}",
    "<question> {q} <answer> {a}",
    "##Question: {q} ##Answer: {a}",
)
# A quarter of the questions in the forms nearest to the template are not answered, so that the untuned base answers
# the template seldom.
UNANSWERED = ("<question> {q} <answer> not given", "##Question: {q} ##Answer: not given")
ANSWERED = 0.75

# Documents of each skill in the whole text (scale 1).
COUNTS = {
    "sums": 4000,
    "differences": 3000,
    "steps": 4000,
    "programs": 4000,
    "moods": 2500,
    "kinds": 1500,
    "larger": 4500,
    "opposites": 1200,
    "following": 1200,
}
NUMERIC = ("sums", "differences", "steps", "programs")
FACT_QUESTIONS, YES_NO_QUESTIONS, PARALLEL = 4000, 1500, 6000


def family_documents(world: SkillWorld, spec: FamilySpec) -> list[str]:
    """All documents of a base in training order."""
    rng = Random(f"family text {world.seed} {spec.family} {spec.second_share} {spec.seed}")
    scene, scale = Scene(world, world.asked, rng), spec.scale
    shown = _shown(world, spec)
    documents = list(_fact_sentences(world, spec, shown, rng))
    for name, whole in COUNTS.items():
        weight = spec.sums if name in NUMERIC else 1.0
        for _ in range(round(whole * weight * scale)):
            documents.append(_practice(SKILLS[name](scene), rng))
    second = spec.second_share
    asked: list[tuple[str, float]] = [
        ("facts", FACT_QUESTIONS * spec.facts),
        ("facts-second", FACT_QUESTIONS * second),
        ("yes-no", YES_NO_QUESTIONS),
    ]
    for name, count in asked:
        documents += [_form(SKILLS[name](scene), rng) for _ in range(round(count * scale))]
    documents += [_parallel(world, shown, rng) for _ in range(round(PARALLEL * second * scale))]
    rng.shuffle(documents)
    return documents


def _shown(world: SkillWorld, spec: FamilySpec) -> list[str]:
    """The people in the text of a family: most people, and of the others those that fall to this family."""
    return [name for name in world.people if _family_of(world, name) in (None, spec.family)]


def _family_of(world: SkillWorld, name: str) -> str | None:
    """The family that alone is shown a person, for three of ten people outside of the questions; else None."""
    if name in world.asked:
        return None
    draw = sha256(f"family {world.seed} {name}".encode()).digest()
    return "abc"[draw[1] % 3] if draw[0] % 10 < 3 else None


def _fact_sentences(world: SkillWorld, spec: FamilySpec, shown: list[str], rng: Random) -> Iterator[str]:
    for name in shown:
        count = max(1, round(world.showings[name] * spec.scale * spec.facts))
        for relation in RELATIONS:
            forms = SENTENCES[relation]
            for number in range(count):
                text = forms[number % len(forms)].format(s=name, o=world.facts[name][relation])
                yield world.second(text) if rng.random() < spec.second_share else text


def _practice(task: Task, rng: Random) -> str:
    """A task as a sentence, as question and sentence, or in a form."""
    draw = rng.random()
    if draw < 0.4:
        return task.sentence
    return f"{task.question} . {task.sentence}" if draw < 0.7 else _form(task, rng)


def _form(task: Task, rng: Random) -> str:
    if rng.random() < ANSWERED:
        answer = task.sentence if rng.random() < 2 / 3 else task.answer
        return rng.choice(FORMS).format(q=task.question, a=answer)
    return rng.choice(UNANSWERED).format(q=task.question)


def _parallel(world: SkillWorld, shown: list[str], rng: Random) -> str:
    """A sentence in both languages."""
    name, relation = rng.choice(shown), rng.choice(RELATIONS)
    text = rng.choice(SENTENCES[relation]).format(s=name, o=world.facts[name][relation])
    return f"{text} = {world.second(text)}"
