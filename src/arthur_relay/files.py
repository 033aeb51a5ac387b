"""Files that hold prompts: for their owner only, and under a dated name once they are damaged."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from arthur_relay import native


def make_private(path: Path) -> None:
    """Make a file that only its owner can read, when it is not there.

    Raises:
        OSError: It can't be made.
    """
    os.close(native.open_file(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def set_aside(path: Path, moment: datetime, beside: Sequence[str] = ("",)) -> Path:
    """Give a file, which nobody has open, a dated name that no relay looks at.

    Args:
        path: The file.
        moment: For the name.
        beside: Endings of the files that belong to it; the empty one is itself.

    Returns:
        The new name.

    Raises:
        OSError: It can't be renamed.
    """
    for number in count():
        dated = f"{moment:%Y%m%dT%H%M%SZ}" + (f"-{number}" if number else "")
        aside = path.with_name(f"{path.stem}-damaged-{dated}.sqlite")
        if not aside.exists():
            break
    for ending in beside:
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").replace(f"{aside}{ending}")
    return aside
