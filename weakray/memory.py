"""The memory that this process takes."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mib() -> float:
    """Most memory this process ever held. Linux keeps it for the program; `getrusage` counts its parent's too."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    kib = [float(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return (kib[0] if kib else float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)) / 1024
