"""Which facts and names are nearest."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.facts.nearest import differing, likeness, most_alike, nearest_facts, nearest_ids


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


IDS = [sha256(str(number).encode()).hexdigest() for number in range(300)]
HEX = "0123456789abcdef"


def slips(id: str, place: int, digit: str) -> dict[str, str]:
    """An id with one slip of a hand at a place."""
    return {
        "another digit": f"{id[:place]}{digit}{id[place + 1 :]}",
        "a digit too many": f"{id[:place]}{digit}{id[place:]}",
        "a digit missing": f"{id[:place]}{id[place + 1 :]}",
        "two digits in the other order": f"{id[:place]}{id[place : place + 2][::-1]}{id[place + 2 :]}",
    }


@given(
    number=st.integers(0, len(IDS) - 1),
    place=st.integers(0, 62),
    digit=st.sampled_from(HEX),
    slip=st.sampled_from(list(slips(IDS[0], 0, "0"))),
    length=st.integers(12, 64),
)
def test_an_id_with_a_slip_is_found_first_whole_or_by_its_beginning(
    number: int, place: int, digit: str, slip: str, length: int
) -> None:
    typed = slips(IDS[number], place, digit)[slip][:length]
    assert nearest_ids(typed, IDS, 3)[0] == IDS[number]


@given(
    number=st.integers(0, len(IDS) - 1), kept=st.integers(4, 40), rest=st.text(HEX, min_size=24, max_size=24)
)
def test_ids_that_share_the_longest_beginning_come_first(number: int, kept: int, rest: str) -> None:
    typed = IDS[number][:kept] + rest

    def beginning(id: str) -> int:
        return next((n for n in range(len(typed), 0, -1) if id.startswith(typed[:n])), 0)

    near = [id for id in IDS if any(differing(typed, id[: len(typed) + more]) <= 2 for more in (-1, 0, 1))]
    found = nearest_ids(typed, [*IDS, *IDS], 5)
    assert len(set(found)) == 5 and found[: len(near)] == near
    lengths = [beginning(id) for id in found[len(near) :]]
    others = sorted((beginning(id) for id in IDS if id not in near), reverse=True)
    assert lengths == others[: len(lengths)]


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [
        ("abc", "abc", 0),
        ("abc", "axc", 1),
        ("abc", "ac", 1),
        ("abcd", "acbd", 2),
        ("axcxe", "abcde", 2),
        ("", "ab", 2),
    ],
)
def test_texts_differ_by_place_or_in_one_stretch(one: str, other: str, number: int) -> None:
    assert differing(one, other) == differing(other, one) == number
