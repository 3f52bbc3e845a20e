"""Which facts and names are nearest."""

from __future__ import annotations

from sftlab.facts.nearest import likeness, most_alike, nearest_facts


def fact(number: int, topic: str, subject: str, obj: str) -> dict[str, str]:
    return {"fact_id": str(number), "topic": topic, "subject": subject, "object": obj}


def test_likeness_is_the_dice_coefficient_of_runs_of_three_letters() -> None:
    # "ab" has the runs "  a", " ab", "ab ", "b  "; "abc" five, of which it shares "  a" and " ab".
    assert likeness("ab", "abc") == 2 * 2 / (4 + 5)
    assert likeness("Łódź", "łódź") == 1.0
    assert likeness("", "") == 1.0


def test_the_most_alike_names_come_first_and_equals_in_their_order() -> None:
    assert most_alike("Osla", ["Paris", "Oslo", "Osaka", "Oslo"], 2) == ["Oslo", "Osaka"]
    assert most_alike("x", ["b", "a"], 2) == ["b", "a"]


def test_a_shared_subject_is_nearer_than_a_shared_object_and_that_than_a_shared_topic() -> None:
    asked = fact(0, "capital", "Norway", "Oslo")
    same_subject = fact(1, "language", "Norway", "Norwegian")
    same_object = fact(2, "birthplace", "Sonja", "Oslo")
    same_topic, alike = fact(3, "capital", "Peru", "Lima"), fact(4, "capital", "Norwich", "none")
    elsewhere = fact(5, "birthplace", "Norwayan", "Rome")
    others = [elsewhere, same_topic, alike, asked, same_object, same_subject]
    assert nearest_facts(asked, others, 4) == [same_subject, same_object, alike, same_topic]
    assert len(nearest_facts(asked, others, 10)) == 5
