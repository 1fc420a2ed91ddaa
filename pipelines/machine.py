"""This machine's memory, and its GPUs as reported by `nvidia-smi`; imports no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def memory_bytes() -> int:
    """Physical memory, or what the control group (a container, a batch job) allows if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            physical = min(physical, int(text))
    return physical


def gpu_memory_bytes() -> list[int]:
    """Memory of each NVIDIA GPU; empty if there is none or `nvidia-smi` does not answer within two seconds."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=2, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) * 2**20 for line in answer.split("\n") if line.strip().isdigit()]
