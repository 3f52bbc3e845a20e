"""The check of wording that `make lint` runs."""

import subprocess
from pathlib import Path

import pytest

from tests.support.words import main, unwanted


def test_an_unwanted_word_is_found_with_its_line_and_a_better_one() -> None:
    text = "The run starts.\nIt is Told, and starts anew.\n"
    assert list(unwanted(text)) == [
        (2, "Told", "report, raise, log, notify; distinguish"),
        (2, "anew", "again"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Users can mend it.",
        "two strokes",
        "its number type",
        "sets damaged results aside",
        "def told(",
        "told = 1",
    ],
)
def test_words_are_found_in_prose_and_in_code(text: str) -> None:
    assert len(list(unwanted(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "recommended and amended",
        "intelligent",
        '<path stroke="red" stroke-width="2"/>',
        "set aside as s3://bucket/a",
    ],
)
def test_longer_words_attributes_of_svg_and_the_asserted_notice_are_allowed(text: str) -> None:
    assert list(unwanted(text)) == []


def test_documents_and_the_package_are_checked_and_other_files_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "guide.md": "fine",
        "platform/lab/a.py": "# fine\n# told\n",
        "other.py": "told",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    assert main(tmp_path) == 1
    assert capsys.readouterr().out == (
        "platform/lab/a.py:2: 'told'; write: report, raise, log, notify; distinguish\n"
    )
    (tmp_path / "platform/lab/a.py").write_text("# fine\n")
    assert main(tmp_path) == 0
