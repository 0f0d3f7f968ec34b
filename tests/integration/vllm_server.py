"""vLLM's OpenAI-compatible server on a free port of this machine, for tests and benchmarks."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskdpo.devices import compute_type
from maskdpo.models import resolve_model

START_S = 420
MEMORY = 0.4  # on a CPU: of the main memory


@contextmanager
def vllm_server(log: Path, *, max_model_len: int, model: str = "smollm2", more: tuple[str, ...] = ()) -> Iterator[str]:
    """Start the server, wait until it answers, yield its ``/v1`` URL, and stop it.

    Args:
        more: further arguments of ``vllm serve``.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_model(model)),
        *("--served-model-name", model, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(max_model_len), "--gpu-memory-utilization", str(MEMORY)),
        *("--enable-prompt-tokens-details", "--enforce-eager"),
        *("--no-enable-chunked-prefill", "--dtype", compute_type("auto", "cpu")),  # as _cpu_settings of vllm_backend.py
        *more,
    ]
    with log.open("w") as sink:
        # dev mode: its prefix cache can be emptied between two measurements
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"}
        )
        try:
            _wait_until_up(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start:\n{log.read_text()[-3000:]}")
