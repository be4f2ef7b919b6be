"""Where do the files of a finished job go, so that nobody ever sees half of them?"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modscope.analysis.run import RECORD_FILE
from modscope.errors import ModscopeError, StudyError
from modscope.records import Record


@contextmanager
def finished_folder(folder: Path, is_ours: Callable[[Record], bool]) -> Iterator[Path]:
    """A hidden folder beside `folder` to write into; it takes `folder`'s place only when everything inside went well.

    Args:
        folder: Where the files shall stand. It must not exist, or be the finished folder of an earlier run.
        is_ours: Whether the record found in an existing folder is that of an earlier run, which may be replaced.

    Raises:
        StudyError: If `folder` holds something else, or cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        _check_replaceable(folder, is_ours)
    made = [parent for parent in folder.parents if not parent.exists()]  # innermost first
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise StudyError(f"cannot write to '{folder}': {error.strerror or error}; choose another --out") from error
    try:
        yield workshop
        workshop.chmod(0o755)
        _put_in_place(workshop, folder)
    except OSError as error:
        raise StudyError(
            f"cannot write to '{folder}': {error.strerror or error}; free some space, or choose another --out"
        ) from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        if not folder.exists():
            _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, up to one that somebody else has put something into."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _check_replaceable(folder: Path, is_ours: Callable[[Record], bool]) -> None:
    refusal = f"'{folder}' exists and is no finished run of this command; choose another --out, or remove it yourself"
    if folder.is_symlink() or not folder.is_dir():
        raise StudyError(refusal)
    try:
        record = Record.load(folder / RECORD_FILE)
    except (ModscopeError, OSError) as error:
        raise StudyError(refusal) from error
    if not is_ours(record):
        raise StudyError(refusal)


def _put_in_place(workshop: Path, folder: Path) -> None:
    if not folder.exists():
        workshop.rename(folder)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(retired / folder.name)
    workshop.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)
