"""Does maskdpo do on this GPU what its tests show on a CPU, and how fast? One table, and the same as JSON.

Every section runs in a process of its own, so that one that fails or hangs is a row, and the others go on. The exit
code is 1 where a section failed or a figure is beyond its limit. No network and no model files are used: models are
random, and the tokenizer is made of the words of this documentation. Packages that are missing are installed, into a
temporary folder, from gpu-wheels/ (``make gpu-wheels``).

Run: python scripts/gpu_check.py [--small] [--only SECTION ...] [--out FILE]
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "gpu-wheels"

SECTIONS: dict[str, tuple[str, int]] = {
    "device": ("gpu_exact:device", 60),
    "exact": ("gpu_exact:exact", 120),
    "layouts": ("gpu_speed:layouts", 150),
    "lora": ("gpu_runs:lora", 90),
    "resume": ("gpu_runs:resume", 90),
    "ranks": ("gpu_ranks:ranks", 150),
    "throughput": ("gpu_speed:throughput", 240),
    "8bit": ("gpu_speed:eight_bits", 120),
    "trl": ("gpu_trl:trl", 120),
    "vllm": ("gpu_runs:vllm", 120),
}
"""Where a section's function is, and after how many seconds it is given up: some times what it should take on a GPU."""
SMALL_FACTOR = 6
"""By which a section may take longer on a CPU that others use, too."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes, so that all of it runs on a CPU")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument(
        "--minutes", type=float, default=8, help="sections that would begin or go on later are given up"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        return _section(options.section, options.small, options.out)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        env = _environment(Path(folder))
        started = time.perf_counter()
        until = started + 60 * options.minutes
        rows = [row for name in options.only for row in _fenced(name, options.small, Path(folder), env, until)]
        seconds = time.perf_counter() - started
        options.out.write_text(json.dumps({"small": options.small, "seconds": seconds, "rows": rows}, indent=1) + "\n")
        _print(rows, seconds, env)
    return int(any(row["ok"] is False for row in rows))


def _section(name: str, small: bool, out: Path) -> int:
    """In the process of a section: its rows, as far as it came, are in the file even where it fails."""
    module, function = SECTIONS[name][0].split(":")
    sys.path.insert(0, str(Path(__file__).parent))
    with out.open("w") as lines:
        for row in getattr(importlib.import_module(module), function)(small):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
    return 0


def _fenced(name: str, small: bool, folder: Path, env: Mapping[str, str], until: float) -> list[dict[str, Any]]:
    """The rows of a section; where it failed, the last one is the end of its error.

    Args:
        until: of ``time.perf_counter``; the section gets no more time than is left.
    """
    out, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    command = [sys.executable, __file__, "--section", name, "--out", str(out), *(["--small"] if small else [])]
    print(f"{name} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    allowed = min(SECTIONS[name][1] * (SMALL_FACTOR if small else 1), until - started)
    if allowed <= 0:
        return [{"section": name, "what": "left out", "found": "the time is over", "limit": "", "ok": False}]
    error = _run(command, log, env, allowed)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if error:
        words = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-600:]
        rows.append({"what": "failed", "found": f"{error}: {words}", "limit": "", "ok": False})
    rows.append({"what": "seconds", "found": f"{time.perf_counter() - started:.0f}", "limit": "", "ok": None})
    for row in rows:
        print(f"  {row['what']}: {row['found']}", file=sys.stderr, flush=True)
    return [{"section": name, **row} for row in rows]


def _run(command: Sequence[str], log: Path, env: Mapping[str, str], allowed: float) -> str:
    """What went wrong, in a few words. All processes that the section has started end with it: vLLM's would keep the
    memory of the device."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=dict(env), start_new_session=True)
    try:
        code = process.wait(allowed)
        return "" if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        return f"no result after {allowed:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """The variables of all sections: no network, caches of their own, and packages that the machine lacks."""
    packages = folder / "packages"
    missing = [wheel for wheel in sorted(WHEELS.glob("*.whl")) if not _is_there(wheel)]
    if any(_module(wheel).startswith("pydantic") for wheel in missing):  # each version needs its own core
        missing = sorted({*missing, *WHEELS.glob("pydantic*.whl")})
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        subprocess.run([*pip, "--target", str(packages), *map(str, missing)], check=True)
    path = [str(ROOT), str(packages), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MASKDPO_CACHE": str(folder / "cache"),
    }


def _is_there(wheel: Path) -> bool:
    """Whether the package is installed, in no earlier major version."""
    if importlib.util.find_spec(_module(wheel)) is None:
        return False
    name, version, *_ = wheel.name.split("-")
    try:
        return int(importlib.metadata.version(name).split(".")[0]) >= int(version.split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return True  # installed without saying its version


def _module(wheel: Path) -> str:
    name = wheel.name.split("-")[0].lower()
    return {"pillow": "PIL", "fonttools": "fontTools", "python_dateutil": "dateutil"}.get(name, name)


def _print(rows: list[dict[str, Any]], seconds: float, env: Mapping[str, str]) -> None:
    """Printed by maskdpo, which this process may not be able to import."""
    code = "import json, sys; from maskdpo import console; console.table(*json.load(sys.stdin))"
    verdicts = {True: "ok", False: "NOT OK", None: ""}
    lines = [[row["section"], row["what"], row["found"], row["limit"], verdicts[row["ok"]]] for row in rows]
    table = [f"maskdpo on this machine, {seconds:.0f} s", ["", "what", "found", "limit", ""], lines]
    subprocess.run([sys.executable, "-c", code], input=json.dumps(table), text=True, env=dict(env), check=False)


if __name__ == "__main__":
    sys.exit(main())
