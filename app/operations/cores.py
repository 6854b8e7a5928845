"""How many processor cores there are to use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Quota and period of a container's processor time (cgroup v2), in microseconds; absent where there is none."""


def cores() -> int:
    """The cores that this process may run on, and no more than a container's quota of processor time."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
    except OSError:
        return allowed
    return allowed if quota == "max" else min(allowed, math.ceil(int(quota) / int(period)))
