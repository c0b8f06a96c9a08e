"""A predictor class of the user's own: what its predictions are kept by, and what is wrong with it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.predictors import Imported
from recon.errors import InputError

Write = Callable[[str, str], Imported]
PLAIN = "class Own:\n    def __call__(self, images):\n        return []\n"
TELLING = f"{PLAIN}    def content(self):\n        return 'weights'\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module, and returns the predictor in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(name: str, text: str) -> Imported:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return Imported(f"{name}:Own")

    return written


def test_an_edited_module_has_another_content(write: Write) -> None:
    before = write("own_edited", PLAIN).content()
    assert write("own_edited", PLAIN).content() == before
    assert write("own_edited", f"{PLAIN}# edited\n").content() != before


def test_what_the_class_tells_of_its_content_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = write("own_telling", TELLING)
    before = predictor.content()
    monkeypatch.setattr(sys.modules["own_telling"].Own, "content", lambda own: "other weights")
    assert predictor.content() != before


@pytest.mark.parametrize(
    ("text", "reason"),
    [("class", "SyntaxError: invalid syntax"), ("1 / 0", "ZeroDivisionError"), ("", "AttributeError")],
)
def test_a_module_that_cannot_be_imported_says_why(write: Write, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"own_broken:Own: cannot import \({reason}"):
        write("own_broken", text).check()
