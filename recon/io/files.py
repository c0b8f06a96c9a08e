"""Files that appear whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recon.errors import InputError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends well.

    A reader, or a run after a crash, never meets half a file. Missing parent folders are made.

    Raises:
        InputError: The file system refuses the file.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        file = next((parent for parent in path.parents if parent.is_file()), None)
        reason = f"{file} is a file, wanted a folder" if file else error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason})") from error
    finally:
        with suppress(OSError):  # a parent that is a file has been said already
            temporary.unlink(missing_ok=True)
