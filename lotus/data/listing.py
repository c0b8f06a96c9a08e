"""Which samples of a data set are whole, and what the others lack."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.errors import InputError


@dataclass(frozen=True)
class Survey:
    """What a data set should have and has, by looking for files only."""

    title: str
    wanted: int
    """Samples that the data set should have."""

    whole: tuple[str, ...]
    """Names of those whose files are all there, in order."""

    missing: Mapping[str, tuple[str, ...]]
    """Kind of file to the names of the samples that lack it; those of missing scenes are not repeated."""

    missing_scenes: tuple[str, ...]
    """Scenes without a single file."""

    @staticmethod
    def of(
        title: str,
        names: Sequence[str],
        files_of: Callable[[str], Mapping[str, str]],
        scene_of: Callable[[str], str],
    ) -> "Survey":
        """Looks for the files of every sample.

        Args:
            title: Of the data set.
            names: All samples that it should have.
            files_of: Paths of a sample's files by their kind; as text, for there may be 10^5 of them.
            scene_of: A sample's scene.
        """
        whole, lacking, present = [], defaultdict(list), set()
        listed: dict[str, Collection[str]] = {}
        for name in names:
            absent = []
            for kind, path in files_of(name).items():
                home, file = os.path.split(path)
                if home not in listed:
                    listed[home] = _names_in(home)
                if file not in listed[home]:
                    absent.append(kind)
                else:
                    present.add(scene_of(name))
            for kind in absent:
                lacking[kind].append(name)
            if not absent:
                whole.append(name)
        scenes = dict.fromkeys(map(scene_of, names))
        missing = {
            kind: tuple(name for name in those if scene_of(name) in present)
            for kind, those in lacking.items()
        }
        return Survey(
            title,
            len(names),
            tuple(whole),
            {kind: those for kind, those in missing.items() if those},
            tuple(scene for scene in scenes if scene not in present),
        )

    def usable(self, folder: Path, chosen: Collection[str] | None) -> tuple[str, ...]:
        """Returns the whole samples, only those of a list if there is one.

        Raises:
            InputError: There is none, or the list has some that are not whole.
        """
        if not self.whole:
            raise InputError(
                f"{folder}: no sample of {self.title} has all its files; `lotus verify` says more"
            )
        if chosen is None:
            return self.whole
        unknown = set(chosen).difference(self.whole)
        if unknown:
            raise InputError(
                f"{folder}: {len(unknown)} samples of the list are missing, the first is {min(unknown)}"
            )
        return tuple(name for name in self.whole if name in set(chosen))


def read_list(path: Path | None) -> frozenset[str] | None:
    """Returns the names in a file, one a line; None of no file.

    Raises:
        InputError: It cannot be read, or has no names.
    """
    if path is None:
        return None
    try:
        names = frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no list of names ({type(error).__name__})") from error
    if not names:
        raise InputError(f"{path}: an empty list of names")
    return names


def _names_in(folder: str) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
