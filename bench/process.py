"""What a process uses: CPU-seconds, memory, and the utilisation of several of them side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


def own_cpu_s() -> float:
    """User and system seconds of this process, all threads."""
    return cpu_s(psutil.Process().pid)


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, all threads."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def peak_rss_bytes(pid: int | None = None) -> int:
    """The most memory that a process has had at once."""
    for line in Path(f"/proc/{'self' if pid is None else pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell the peak of the resident memory (VmHWM)")


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content))
    part.rename(path)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run used: CPU of the measured process, wall time, and memory at the beginning and at its peak."""

    cpu_s: float
    wall_s: float
    rss_begin: int
    rss_peak: int


class Utilisation:
    """Cores used by each of some processes between two looks."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._began_s = time.monotonic()
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def cores(self) -> dict[str, float]:
        """Name → cores since the beginning (1.0 is one core all the time)."""
        seconds = time.monotonic() - self._began_s
        return {name: (cpu_s(pid) - self._before[name]) / seconds for name, pid in self._pids.items()}
