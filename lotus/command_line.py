"""How both programs, `lotus` and `recon`, find a command, run it, and end."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from typing import NoReturn

from recon.errors import InputError, ReconError

TORCH_SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for others sleep instead of spinning
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: far fewer page faults for maps of hundreds of megabytes
    "TORCHINDUCTOR_CACHE_DIR": os.path.expanduser("~/.cache/lotus-recon/kernels"),  # of --compile
}
"""What torch reads of the environment when it is loaded; the user's own settings come first."""


@dataclass(frozen=True)
class Program:
    """A program with several commands."""

    name: str
    commands: Mapping[str, tuple[str, str]]
    """Module and one line of help; a module is imported only when its command runs, which is its function of
    that name."""

    help: str
    """Text with a place for {commands}."""

    after_interrupt: str
    """What an interrupted run leaves."""

    after_interrupt_of: Mapping[str, str] = field(default_factory=dict)
    """The same of the commands that leave something else."""


def run(program: Program, arguments: Sequence[str] | None = None) -> None:
    """Runs a command line; returns where that ends well.

    A known error exits with one line and code 1, wrong usage with 2, an interrupt with 130, SIGTERM with 143.

    Args:
        program: Which one.
        arguments: The words after its name; None takes those of the process.
    """
    for name, value in TORCH_SETTINGS.items():  # before torch is imported
        os.environ.setdefault(name, value)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        listing = "\n".join(f"  {name:10s}{text}" for name, (_, text) in program.commands.items())
        sys.stdout.write(program.help.format(commands=listing))
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        sys.stdout.write(f"{program.name} {version('lotus-recon')}\n")
        sys.exit(0)
    if words[0] not in program.commands:
        there = ", ".join(program.commands)
        sys.stderr.write(f"{program.name}: no command {words[0]!r}; there are {there}\n")
        sys.exit(2)
    logging.basicConfig(format=f"{program.name}: %(message)s", level=logging.WARNING, stream=sys.stderr)
    if threading.current_thread() is threading.main_thread():  # others cannot take signals
        signal.signal(signal.SIGTERM, _end)
    try:
        _check_paths(words)
        home = importlib.import_module(program.commands[words[0]][0])  # so that help needs none of it
        getattr(home, words[0])(words[1:])
    except ReconError as error:
        sys.stderr.write(f"{program.name}: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        sys.stderr.write(f"{program.name}: {' '.join(said.split())}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        left = program.after_interrupt_of.get(words[0], program.after_interrupt)
        sys.stderr.write(f"{program.name}: interrupted; {left}\n")
        sys.exit(130)


def _check_paths(words: Sequence[str]) -> None:
    """Raises where a path is empty, which would be the current folder; an option may be."""
    for place, (before, word) in enumerate(pairwise(words), 1):
        if not word and not before.startswith("--"):
            raise InputError(f"{words[0]}: argument {place} is empty, wanted a path")


def _end(number: int, _: object) -> NoReturn:
    """Ends as an exception does, so that a run's own processes end with it."""
    raise SystemExit(128 + number)
