"""Memory and processor time of a process and all its descendants, from /proc; elsewhere nothing is known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def tree_of(pid: int) -> set[int]:
    """A process and its descendants; only itself where the system does not tell."""
    children: dict[int, list[int]] = {}
    for child, fields in _all_stats():
        children.setdefault(int(fields[1]), []).append(child)
    found: set[int] = set()
    fresh = [pid]
    while fresh:
        found.add(parent := fresh.pop())
        fresh += [child for child in children.get(parent, []) if child not in found]
    return found


def memory_mb_of(pids: Iterable[int]) -> float | None:
    """Memory of processes together, in megabytes, shared pages counted once (PSS); None when none of them tells."""
    total = 0.0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended, or this is not Linux
        total += _kilobytes(text, "Pss") / 1000
    return round(total, 1) if total else None


def cpu_s_of(pids: Iterable[int]) -> float | None:
    """Seconds of processor time that these processes, and their children that have ended, used so far."""
    wanted = set(pids)
    ticks = [sum(map(int, fields[11:15])) for pid, fields in _all_stats() if pid in wanted]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def children_cpu_s() -> float | None:
    """Seconds of processor time of all ended descendants of this process; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    """Process id and the fields behind the name in /proc/<pid>/stat, of all processes."""
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), path.read_text().rpartition(")")[2].split()
        except OSError:
            continue


def _kilobytes(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return float(found[1]) * 1.024 if found else 0.0
