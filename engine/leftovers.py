"""What a run leaves outside of itself bears a process id in its name, so that what the dead left can be removed."""

from __future__ import annotations

import os
import re
from pathlib import Path


def own_names(kind: str) -> str:
    """How names of shared things begin that end with a process id. In containers that share a folder, the same id may
    be another's: on Linux they differ by what numbers the processes. What a container leaves there that was killed as
    a whole nobody can tell from what another one uses, so it stays."""
    numbering = Path("/proc/self/ns/pid")
    return f"{kind}-{numbering.stat().st_ino:x}" if numbering.exists() else kind


def owner_of(name: str, own: str) -> int | None:
    """The process id in a name that begins with `own`, as `own_names` gives it; None in others."""
    found = re.match(rf"{own}-(\d+)-", name)
    return int(found[1]) if found else None


def left_by_the_dead(folder: Path, own: str) -> list[Path]:
    """What lies there under such names, of processes that run no more."""
    owners = {path: owner_of(path.name, own) for path in folder.glob(f"{own}-*")}
    return [path for path, pid in owners.items() if pid is not None and not process_exists(pid)]


def process_exists(pid: int) -> bool:
    """Whether a process of that id runs (POSIX); assume so where it cannot be told."""
    if os.name != "posix":
        return True  # os.kill(pid, 0) would end the process on Windows
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
