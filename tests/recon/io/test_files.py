"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from recon.errors import InputError
from recon.io.files import replaced


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replaced(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replaced(path) as temporary:
            temporary.write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("below", ["a.txt", "deep/er/a.txt"])
def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError) as caught, replaced(file / below):
        pass
    assert str(caught.value) == f"{file / below}: cannot be written ({file} is a file, wanted a folder)"
