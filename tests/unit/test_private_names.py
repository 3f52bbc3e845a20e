"""Tests use what modules of the package make public, so that its inside can change without them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTS = re.compile(r"from (?:sftlab|benchmarks)[\w.]* import (\([^)]*\)|[^\n]*)")
PRIVATE = re.compile(r"\b_[A-Za-z]\w*")
PATCHED = re.compile(r"""setattr\(\s*[\w.]+,\s*["'](_\w+)["']""")
ATTRIBUTE = re.compile(r"(?<![\w.])(?!self\b|cls\b|os\b|ray\b)[\w.]*\w(?:\([^()\n]*\))?\._[A-Za-z]\w*")
# Of Ray and MLflow, whose faults some tests show; of a test's object.
FOREIGN = re.compile(
    r"utils\.|ray\.|mlflow\.|SSHCommandRunner\.|SerializationContext\.|pytest\.|self\.|super\(\)\."
)


def private_names(text: str) -> list[str]:
    found = [name for names in IMPORTS.findall(text) for name in PRIVATE.findall(names)]
    found += PATCHED.findall(text)
    return found + [name for name in ATTRIBUTE.findall(text) if not FOREIGN.search(name)]


def test_no_test_uses_a_private_name_of_the_package() -> None:
    files = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = {path.name: private_names(path.read_text()) for path in files if path != Path(__file__)}
    assert len(files) > 200 and {name: names for name, names in found.items() if names} == {}


def test_private_names_are_found() -> None:
    assert private_names("from sftlab.a import b, _c\nfrom sftlab.d import (\n    e,\n    _f,\n)\n") == [
        "_c",
        "_f",
    ]
    assert private_names("patch.setattr(registry, '_known', {})\n") == ["_known"]
    assert private_names('monkeypatch.setattr("sftlab.a.b._live", 1)') == ["sftlab.a.b._live"]
    assert private_names("pool._take(runs); self._mine = 1; os._exit(0); engine()._llm") == [
        "pool._take", "engine()._llm",
    ]  # fmt: skip
