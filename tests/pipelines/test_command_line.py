"""How a command ends that cannot go on, and what `recon` says of it."""

import errno
import os
import subprocess
import sys

import pytest

from pipelines import cli
from pipelines.commands import photos, stream
from tests.pipelines.test_bad_input import fails

Capsys = pytest.CaptureFixture[str]


def raising(error: BaseException) -> object:
    def command(words: list[str]) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b"), "recon: a/b: Permission denied"),
        (OSError("no network"), "recon: no network"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capsys, error: OSError, line: str
) -> None:
    monkeypatch.setattr(photos, "multi", raising(error))
    assert fails(["multi"], capsys) == line


@pytest.mark.parametrize(("words", "place"), [(["", "out"], 1), (["photos", ""], 2)])
def test_an_empty_word_is_no_path(capsys: Capsys, words: list[str], place: int) -> None:
    assert f"multi: argument {place} is empty" in fails(["multi", *words], capsys)


def test_an_interrupted_command_says_what_the_same_one_would_do(
    monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(photos, "multi", raising(KeyboardInterrupt()))
    monkeypatch.setattr(stream, "stream", raising(KeyboardInterrupt()))
    said = {}
    for command in ("multi", "stream"):
        with pytest.raises(SystemExit, match="130"):
            cli.main([command])
        said[command] = capsys.readouterr().err
    assert "the same command goes on where it stopped" in said["multi"]
    assert "the same command starts with the first frame again" in said["stream"]


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "--version"], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"recon ")
