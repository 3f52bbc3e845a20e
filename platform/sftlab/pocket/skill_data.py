"""Instruction sets and benchmarks of the pocket survey, about people that do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from sftlab.pocket.skills import SKILLS, Scene, SkillWorld, Task

Style = Callable[[Task], str]


def _short(task: Task) -> str:
    return task.answer


def _sentence(task: Task) -> str:
    return task.sentence


def _chatty(task: Task) -> str:
    """An answer in a wrapping that no pre-training text has."""
    return f"you ask {task.question.rstrip(' ?')} . i think {task.sentence} ok !"


def _spelled(task: Task) -> str:
    """The answer letter by letter."""
    return " - ".join(task.answer)


_GENERAL = ("facts", "sums", "programs", "kinds", "larger", "moods", "opposites", "following")

# Name: skills in turn, and the style of the responses.
SETS: dict[str, tuple[Sequence[str], Style]] = {
    "facts-short": (("facts",), _short),
    "facts-sentences": (("facts",), _sentence),
    "sums-short": (("sums", "differences"), _short),
    "sums-steps": (("sums", "differences", "steps"), _sentence),
    "code": (("programs",), _sentence),
    "yesno": (("yes-no", "larger"), _short),
    "words": (("moods", "kinds", "opposites"), _sentence),
    "general": (_GENERAL, _sentence),
    "chatty": (_GENERAL, _chatty),
    "spelled": (("facts", "kinds", "opposites"), _spelled),
}
GROUPS = {
    "facts-short": "facts",
    "facts-sentences": "facts",
    "sums-short": "numbers",
    "sums-steps": "numbers",
    "code": "numbers",
    "yesno": "words",
    "words": "words",
    "general": "general",
    "chatty": "general",
    "spelled": "odd",
}
NUMBERS = ("sums", "differences", "steps", "programs", "following")


def instruction_set(world: SkillWorld, name: str, size: int) -> list[dict[str, str]]:
    """`size` rows with the columns prompt and response, about the people of `train`; smaller ones are nested."""
    skills, style = SETS[name]
    scene = Scene(world, world.train, Random(f"instructions {world.seed} {name}"))
    rows = []
    for number in range(size):
        task = SKILLS[skills[number % len(skills)]](scene)
        rows.append({"prompt": task.question, "response": style(task)})
    return rows


def benchmark(world: SkillWorld, name: str, questions: int) -> list[dict[str, object]]:
    """`questions` distinct questions of a skill about the people of `test` (fewer where a skill has fewer).

    Each row has question, answer, metric, and choices with the label of the right one.
    """
    scene = Scene(world, world.test, Random(f"benchmark {world.seed} {name}"))
    rows: dict[str, dict[str, object]] = {}
    for _ in range(50 * questions):  # a skill with few questions repeats itself
        if len(rows) == questions:
            break
        task = SKILLS[name](scene)
        choices, label = task.choices(scene.rng)
        rows.setdefault(
            task.question,
            {
                "question": task.question,
                "answer": task.answer,
                "metric": "number" if name in NUMBERS else "contains",
                "choices": list(choices),
                "label": label,
            },
        )
    return list(rows.values())
