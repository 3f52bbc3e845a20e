"""The world of the pocket survey: skills, second language, instruction sets, benchmarks, texts of families."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from sftlab.measurements.verdicts import score
from sftlab.pocket.families import family_documents
from sftlab.pocket.language import second_language, translated
from sftlab.pocket.skill_data import NUMBERS, SETS, benchmark, instruction_set
from sftlab.pocket.skills import SKILLS, Scene, SkillWorld, skill_world
from sftlab.pocket.spec import FamilySpec


@pytest.fixture(scope="module")
def world() -> SkillWorld:
    return skill_world(0, 30)


def test_second_language_has_another_form_for_every_word_and_no_two_alike() -> None:
    words = ["lives", "in", "works", "baker"]
    forms = second_language(words, 3)
    assert sorted(forms) == sorted(words)
    assert len({*forms.values()} | {*words}) == 2 * len(words)
    assert forms == second_language(reversed(words), 3)
    assert translated("Zobin lives in Inburg .", forms) == f"Zobin {forms['lives']} {forms['in']} Inburg ."


def test_people_of_training_test_and_text_are_disjoint(world: SkillWorld) -> None:
    assert len({*world.train, *world.test, *world.asked}) == 30
    assert world == skill_world(0, 30)
    assert world.facts != skill_world(1, 30).facts


@pytest.mark.parametrize("name", SKILLS)
def test_every_sentence_holds_the_right_answer_and_no_choice_is_right_twice(
    world: SkillWorld, name: str
) -> None:
    scene = Scene(world, world.test, Random(0))
    metric = "number" if name in NUMBERS and name != "following" else "contains"
    for _ in range(50):
        task = SKILLS[name](scene)
        assert score(task.sentence, [task.answer], metric) == 1.0  # type: ignore[arg-type]
        choices, label = task.choices(scene.rng)
        assert choices[label] == task.answer
        assert len(set(choices)) == len(choices) > 1


def test_sums_are_right(world: SkillWorld) -> None:
    scene = Scene(world, (), Random(1))
    for _ in range(50):
        _, _, a, _, b, *_ = SKILLS["sums"](scene).question.split()
        assert a.isdigit() and b.isdigit()
        task = SKILLS["steps"](scene)
        numbers = [int(word) for word in task.question.split() if word.isdigit()]
        assert int(task.answer) == sum(numbers)


def test_instruction_sets_are_nested_and_about_the_people_of_training(world: SkillWorld) -> None:
    for name in SETS:
        rows = instruction_set(world, name, 20)
        assert rows[:7] == instruction_set(world, name, 7)
        text = " ".join(row["prompt"] for row in rows)
        assert not any(person in text for person in (*world.test, *world.asked))


def test_benchmarks_ask_each_question_once_and_about_the_people_of_test(world: SkillWorld) -> None:
    for name in SKILLS:
        rows = benchmark(world, name, 25)
        counts = Counter(str(row["question"]) for row in rows)
        assert max(counts.values()) == 1
        assert not any(person in question for question in counts for person in (*world.train, *world.asked))
        for row in rows:
            assert row["choices"][row["label"]] == row["answer"]  # type: ignore[index]


def test_text_of_a_family_repeats_and_differs_by_family_language_and_scale(world: SkillWorld) -> None:
    spec = FamilySpec(scale=0.02)
    documents = family_documents(world, spec)
    assert documents == family_documents(world, spec)
    assert documents != family_documents(world, spec.model_copy(update={"family": "b"}))
    second = family_documents(world, spec.model_copy(update={"second_share": 1.0}))
    form = world.forms["lives"]
    assert sum(f" {form} " in text for text in second) > sum(f" {form} " in text for text in documents)
    assert len(family_documents(world, spec.model_copy(update={"scale": 0.04}))) > 1.5 * len(documents)


def test_some_people_are_shown_to_one_family_alone() -> None:
    world = skill_world(0, 90)
    shown = {}
    for family in ("a", "b", "c"):
        text = " ".join(family_documents(world, FamilySpec(family=family, scale=0.02)))
        shown[family] = {name for name in world.people if name in text}
    alone = [
        name for name in (*world.train, *world.test) if sum(name in found for found in shown.values()) == 1
    ]
    assert 8 <= len(alone) <= 28  # three of ten of sixty people
    assert set(world.asked) <= shown["a"] & shown["b"] & shown["c"]
