"""How many GPUs torch will find, without importing it: that alone takes seconds."""

from __future__ import annotations

import ctypes
import sys
from importlib import metadata


def has_gpu() -> bool:
    """Whether torch will find a GPU."""
    return count_gpus() > 0


def count_gpus() -> int:
    """Count the GPUs that this process may use. The driver is asked for CUDA's; for others torch has to be."""
    build = metadata.version("torch").partition("+")[2]
    if build == "cpu":
        return 0
    if build.startswith(("rocm", "xpu")) or sys.platform == "darwin":
        import torch

        return torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0
