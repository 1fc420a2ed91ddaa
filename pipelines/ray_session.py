"""Starting Ray on this machine, or joining the cluster the config names; quiet, and without telemetry."""

from __future__ import annotations

import logging
import os
from pathlib import Path

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # The accelerator variables of a worker without a GPU stay as they are; unset, Ray warns about it at each start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def start(cpus: int | None = None, address: str | None = None, verbose: bool = False) -> None:
    """Connect this process to Ray; does nothing when it is connected already.

    With an `address` the cluster is joined and this checkout shipped to its workers; otherwise Ray starts here with
    `cpus` CPUs and ends with this process.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    level = logging.INFO if verbose else logging.ERROR
    if address:
        root = Path(__file__).resolve().parents[1]
        packages = [str(root / name) for name in ("pipelines", "stages", "models", "conf")]
        runtime_env = {"py_modules": packages, "env_vars": QUIET}
        ray.init(address=address, runtime_env=runtime_env, logging_level=level, log_to_driver=verbose)
        return
    ray.init(num_cpus=cpus, include_dashboard=False, logging_level=level, log_to_driver=verbose)
