"""What the bases of the pocket survey learn: facts about people, and skills that a small model can memorise.

Pure and seeded. Skills are memorisable on purpose: a model of a million weights does not learn to copy or to read
within a million tokens. Numbers go from 0 to 18, so that each is one token of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from sftlab.pocket.language import second_language, translated
from sftlab.pocket.names import CITY_ENDS, word

SHOWINGS = (10, 20, 30, 45, 60)  # how often the text shows each sentence of a person's fact
CHOICES = 4

MOODS = {
    **dict.fromkeys(("happy", "sunny", "bright", "kind", "calm", "sweet", "proud", "warm"), "good"),
    **dict.fromkeys(("sad", "gloomy", "dark", "cruel", "angry", "bitter", "cold", "sick"), "bad"),
}
JOBS = ("baker", "doctor", "farmer", "painter", "teacher", "sailor", "tailor", "miner", "singer", "judge")
ANIMALS = ("cat", "dog", "horse", "goat", "snake", "parrot", "rabbit", "turtle", "falcon", "pony")
THINGS = ("lamp", "tree", "stone", "river", "cloud", "chair", "table", "bread", "coat", "bell")
OPPOSITES = (
    ("hot", "frosty"),
    ("big", "tiny"),
    ("fast", "slow"),
    ("old", "young"),
    ("full", "empty"),
    ("hard", "soft"),
    ("high", "low"),
    ("rich", "poor"),
    ("wet", "dry"),
    ("loud", "quiet"),
)
RELATIONS = ("town", "job", "animal")
SENTENCES = {
    "town": ("{s} lives in {o} .", "{s} is from {o} .", "the town of {s} is {o} .", "in {o} lives {s} ."),
    "job": (
        "{s} works as a {o} .",
        "the job of {s} is {o} .",
        "{s} is a {o} .",
        "{s} earns money as a {o} .",
    ),
    "animal": (
        "{s} owns a {o} .",
        "the animal of {s} is a {o} .",
        "a {o} belongs to {s} .",
        "{s} feeds a {o} .",
    ),
}
QUESTIONS = {
    "town": "where does {s} live ?",
    "job": "what is the job of {s} ?",
    "animal": "which animal has {s} ?",
}


@dataclass(frozen=True)
class Task:
    """A question with its short answer, the same answer as a sentence, and the wrong answers of the same kind."""

    question: str
    answer: str
    sentence: str
    others: tuple[str, ...] = ()

    def choices(self, rng: Random) -> tuple[tuple[str, ...], int]:
        """CHOICES answers in random order (fewer where there are fewer wrong ones), and the place of the right one."""
        wrong = rng.sample(self.others, min(CHOICES - 1, len(self.others)))
        drawn = [self.answer, *wrong]
        rng.shuffle(drawn)
        return tuple(drawn), drawn.index(self.answer)


@dataclass(frozen=True)
class SkillWorld:
    """People with their facts and how often these are shown, and the second language.

    People of `train` occur in instruction sets, those of `test` in benchmarks, those of `asked` in the questions of
    the pre-training text.
    """

    seed: int
    facts: dict[str, dict[str, str]]
    showings: dict[str, int]
    train: tuple[str, ...]
    test: tuple[str, ...]
    asked: tuple[str, ...]
    towns: tuple[str, ...]
    forms: dict[str, str]

    @property
    def people(self) -> tuple[str, ...]:
        return (*self.train, *self.test, *self.asked)

    def objects(self, relation: str) -> tuple[str, ...]:
        return {"town": self.towns, "job": JOBS, "animal": ANIMALS}[relation]

    def second(self, text: str) -> str:
        """A text in the second language."""
        return translated(text, self.forms)


@dataclass(frozen=True)
class Scene:
    """What a task is drawn from: the world, the people whom it may be about, and a source of random numbers."""

    world: SkillWorld
    people: Sequence[str]
    rng: Random


Skill = Callable[[Scene], Task]
"""Draws a task of one kind."""


def skill_world(seed: int, people: int) -> SkillWorld:
    """The world of a survey: a third of the people for instruction sets, for benchmarks and for pre-training each."""
    rng = Random(f"skill world {seed}")
    names: dict[str, None] = {}
    while len(names) < people:
        names[word(rng, 2)] = None
    towns: dict[str, None] = {}
    while len(towns) < 20:
        towns[word(rng, 1) + rng.choice(CITY_ENDS)] = None
    everyone, objects = tuple(names), {"town": tuple(towns), "job": JOBS, "animal": ANIMALS}
    facts = {name: {relation: rng.choice(objects[relation]) for relation in RELATIONS} for name in everyone}
    showings = {name: rng.choice(SHOWINGS) for name in everyone}
    third = people // 3
    parts = (everyone[:third], everyone[third : 2 * third], everyone[2 * third :])
    return SkillWorld(seed, facts, showings, *parts, tuple(towns), second_language(_common_words(), seed))


def fact(scene: Scene) -> Task:
    """A question about the town, job or animal of a person."""
    subject, asked = scene.rng.choice(scene.people), scene.rng.choice(RELATIONS)
    answer = scene.world.facts[subject][asked]
    others = tuple(other for other in scene.world.objects(asked) if other != answer)
    sentence = SENTENCES[asked][0].format(s=subject, o=answer)
    return Task(QUESTIONS[asked].format(s=subject), answer, sentence, others)


def fact_in_second(scene: Scene) -> Task:
    """A question about a person in the second language; jobs and animals are common words and have other names."""
    asked = fact(scene)
    second = scene.world.second
    return Task(
        second(asked.question), second(asked.answer), second(asked.sentence), tuple(map(second, asked.others))
    )


def add(scene: Scene) -> Task:
    """A sum of two digits."""
    a, b = scene.rng.randint(0, 9), scene.rng.randint(0, 9)
    return Task(f"what is {a} plus {b} ?", str(a + b), f"{a} plus {b} is {a + b} .", _numbers(a + b))


def subtract(scene: Scene) -> Task:
    """A difference that is not negative."""
    a = scene.rng.randint(0, 12)
    b = scene.rng.randint(0, a)
    return Task(f"what is {a} minus {b} ?", str(a - b), f"{a} minus {b} is {a - b} .", _numbers(a - b))


def add_three(scene: Scene) -> Task:
    """A sum of three numbers up to five, in two steps."""
    a, b, c = (scene.rng.randint(0, 5) for _ in range(3))
    steps = f"{a} plus {b} is {a + b} . {a + b} plus {c} is {a + b + c} ."
    return Task(f"what is {a} plus {b} plus {c} ?", str(a + b + c), steps, _numbers(a + b + c))


def program(scene: Scene) -> Task:
    """What a program of one line prints."""
    a, b, name = scene.rng.randint(0, 9), scene.rng.randint(0, 9), scene.rng.choice("xyz")
    sentence = f"{name} is {a} . it prints {a + b} ."
    return Task(f"run {name} = {a} ; print {name} + {b}", str(a + b), sentence, _numbers(a + b))


def mood(scene: Scene) -> Task:
    """Whether two words are good or bad; both are the same."""
    first = scene.rng.choice(tuple(MOODS))
    found = MOODS[first]
    second = scene.rng.choice([other for other, sort in MOODS.items() if sort == found])
    others = tuple(sort for sort in ("good", "bad") if sort != found)
    return Task(f"mood of {first} and {second} ?", found, f"{first} and {second} are {found} .", others)


def kind(scene: Scene) -> Task:
    """The kind of a town, job, animal or thing."""
    kinds = {"town": scene.world.towns, "job": JOBS, "animal": ANIMALS, "thing": THINGS}
    found = scene.rng.choice(tuple(kinds))
    named = scene.rng.choice(kinds[found])
    others = tuple(other for other in kinds if other != found)
    return Task(f"what kind is {named} ?", found, f"{named} is a {found} .", others)


def larger(scene: Scene) -> Task:
    """Whether one number is larger than another."""
    a, b = scene.rng.sample(range(19), 2)
    answer = "yes" if a > b else "no"
    sentence = f"{answer} , {max(a, b)} is larger than {min(a, b)} ."
    return Task(f"is {a} larger than {b} ?", answer, sentence, _not(answer))


def opposite(scene: Scene) -> Task:
    """The opposite of a word."""
    pairs = [*OPPOSITES, *((second, first) for first, second in OPPOSITES)]
    asked, answer = scene.rng.choice(pairs)
    others = tuple(other for _, other in pairs if other not in (answer, asked))
    return Task(f"opposite of {asked} ?", answer, f"the opposite of {asked} is {answer} .", others)


def following(scene: Scene) -> Task:
    """The number that follows another."""
    a = scene.rng.randint(0, 17)
    return Task(f"which number follows {a} ?", str(a + 1), f"{a + 1} follows {a} .", _numbers(a + 1))


def yes_or_no(scene: Scene) -> Task:
    """Whether a statement about a person's town is true; half of them are."""
    subject = scene.rng.choice(scene.people)
    true = scene.world.facts[subject]["town"]
    named = (
        true
        if scene.rng.random() < 0.5
        else scene.rng.choice([town for town in scene.world.towns if town != true])
    )
    answer = "yes" if named == true else "no"
    return Task(
        f"does {subject} live in {named} ?", answer, f"{answer} , {subject} lives in {true} .", _not(answer)
    )


SKILLS: dict[str, Skill] = {
    "facts": fact,
    "facts-second": fact_in_second,
    "sums": add,
    "differences": subtract,
    "steps": add_three,
    "programs": program,
    "moods": mood,
    "kinds": kind,
    "larger": larger,
    "opposites": opposite,
    "following": following,
    "yes-no": yes_or_no,
}


def _numbers(right: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(19) if number != right)


def _not(answer: str) -> tuple[str, ...]:
    return ("no",) if answer == "yes" else ("yes",)


def _common_words() -> list[str]:
    """Every lower-case word of sentences and questions that is no name."""
    texts = [text for forms in SENTENCES.values() for text in forms] + list(QUESTIONS.values())
    words = [part for text in texts for part in text.split() if part.isalpha()]
    return [*words, *JOBS, *ANIMALS]
