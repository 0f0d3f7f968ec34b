"""Ray itself: the cluster of $RAY_ADDRESS, or one of this machine's own; and what each worker may ask of it."""

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from maskdpo.errors import UserError, first_line
from maskdpo.extras import require

OBJECT_STORE_BYTES = 128 * 2**20
"""For what is too large for a message; a local Ray would take a third of the memory."""
LOCAL = "local"
"""Ray's name for a cluster of this machine alone, which a process starts for itself."""
ADVICE = "Ask for fewer `workers`, or for a smaller `gpus_per_worker`: several workers may share one GPU"
OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` has Ray pack the folder and install everything anew
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning of Ray's asks for it
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else Ray writes to stdout that a worker has died, which ``Workers`` says too
}
"""What Ray reads from the environment, unless the user says otherwise. Ray listens on all interfaces, also for this
machine alone, and whoever is let in can run code: so nobody is without the token."""

_started_here: set[str] = set()
"""The addresses of clusters that ``connect`` has started."""


def connect() -> ModuleType:
    """The package ``ray``, connected: to the cluster that this process uses already, to $RAY_ADDRESS, or to a Ray that
    is started here and ends with this process.

    Raises:
        UserError: ray is missing, or the cluster cannot be reached.
    """
    imported_before = sys.modules.get("ray")
    if imported_before is not None and imported_before.is_initialized():
        return imported_before
    for name, value in OURS.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address.startswith("ray://"):
        raise UserError(
            f"$RAY_ADDRESS is {address}, and Ray's client is not supported: run maskdpo on a machine of the cluster "
            "(`ray job submit`, or a shell there) with RAY_ADDRESS=auto"
        )
    if address == LOCAL and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray itself would write one that all users can read
    ray = require("ray", install="'maskdpo[ray]'", purpose="`workers`")
    if imported_before is not None:  # it has read the environment then; as Ray's own code has it read the mode anew
        ray._raylet.Config.initialize("")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"num_cpus": cores(), "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **quiet, **(own if address == LOCAL else {}))
    except Exception as error:
        known = (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError)
        if not isinstance(error, known) and type(error) is not Exception:  # a bare one: the start took too long
            raise
        hint = (
            " A cluster without tokens is used with RAY_AUTH_MODE=disabled; else this machine needs the token of the "
            "cluster in $RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
        what = "cannot start Ray" if address == LOCAL else f"cannot reach the Ray cluster at {address}"
        raise UserError(f"{what}: {first_line(error)}.{'' if address == LOCAL else hint}") from None
    if address == LOCAL:
        _started_here.add(ray.get_runtime_context().gcs_address)
    if threading.current_thread() is threading.main_thread() and before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    return ray


def is_of_this_machine(ray: ModuleType) -> bool:
    """Whether the cluster is the one that ``connect`` has started, for this process alone."""
    return ray.get_runtime_context().gcs_address in _started_here


def logs_of(ray: ModuleType) -> str:
    """The folder of the logs of this session; ``session_latest`` is the one that anybody has started last."""
    return str(ray._private.worker._global_node.get_logs_dir_path())


def _end(signum: int, frame: object) -> None:
    """SIGTERM ends the process as it does without Ray, but Ray's own processes are ended first."""
    raise SystemExit(128 + signum)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs(ray: ModuleType, workers: int, gpus: float | None, gpus_each: int) -> dict[str, float]:
    """What each worker asks of Ray, by the names of Ray's options.

    Args:
        gpus: for each worker; None: ``gpus_each`` where the cluster has GPUs.

    Raises:
        UserError: this machine is all there is, and has fewer GPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = sum(node.get("GPU", 0) for node in nodes)
    wanted = gpus if gpus is not None else gpus_each if there else 0
    local = is_of_this_machine(ray)
    if local and workers * wanted > there:
        raise UserError(
            f"{workers} `workers` with {wanted:g} GPUs each need {workers * wanted:g} GPUs, and this machine has "
            f"{there:g}. {ADVICE if there else 'Leave `gpus_per_worker` out: workers then share the cores'}"
        )
    cores_each = cores_wanted(workers, [int(node.get("CPU", 0)) for node in nodes])
    # on a machine of its own nothing else asks Ray for cores
    return {"num_cpus": 0 if local else min(1, cores_each) if wanted else cores_each, "num_gpus": wanted}


def threads_for(workers: int, needs: Mapping[str, float]) -> int | None:
    """Threads for tensors in each worker, where $OMP_NUM_THREADS says nothing; None: as Ray sets them, by its cores."""
    return None if needs["num_cpus"] or "OMP_NUM_THREADS" in os.environ else max(1, cores() // workers)


def cores_wanted(workers: int, cores: Sequence[int]) -> int:
    """Cores for each worker: those of the machines are divided among them. 0, which Ray always has, where there are
    fewer cores than workers."""
    fitting = (each for each in range(1, max(cores, default=0) + 1) if sum(n // each for n in cores) >= workers)
    return max(fitting, default=0)


def told_of(ray: ModuleType, needs: Mapping[str, float]) -> str:
    """What each worker asks for, beside what there is."""
    there = ray.cluster_resources()
    asks = [f"{needs[name]:g} {kind}" for name, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")) if needs[name]]
    has = [f"{there.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU")]
    return f"each asks for {' and '.join(asks) or 'a process'}, and the whole cluster has {' and '.join(has)}"
