"""Processes of their own that need not import anew: each is forked from one that has imported what takes seconds.

They can be signalled and killed as any other. ``python forking.py MODULE ...`` imports the modules, then reads jobs
from its standard input, each a line of JSON: what to call in a new process, or which process to wait for.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Done(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str


class Child:
    """A process that was forked."""

    def __init__(self, forks: "Forks", pid: int, out: Path, err: Path) -> None:
        self.pid, self.out, self.err = pid, out, err
        self._forks = forks

    def has_ended(self) -> bool:
        return bool(self._forks.ask({"look_at": self.pid}))

    def done(self) -> Done:
        """Wait for its end."""
        code = self._forks.ask({"wait": self.pid})
        return Done(code, self.out.read_text(), self.err.read_text())


class Forks:
    """The process that forks. It ends when its standard input does.

    Args:
        modules: what it imports, once.
        env: its environment, which counts for what these modules read when they are imported.
    """

    def __init__(self, *modules: str, env: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._number = 0
        path = os.pathsep.join([*sys.path, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            env={**(os.environ if env is None else env), "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, job: dict[str, Any]) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process that forks has ended with {self._process.wait()}"
        return int(answer)

    def start(
        self, function: str, *arguments: Any, argv: list[str] | None = None, cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:  # fmt: skip
        """Call a function in a new process.

        Args:
            function: ``module:name``. Its process ends with 0 when it returns, as ``sys.exit`` says, or with 1 and a
                traceback.
            arguments: of the function; what JSON can hold.
            argv: ``sys.argv`` of the process.
            env: its whole environment. None: that of the caller.
        """
        self._number += 1
        out, err = (Path(self._folder.name) / f"{self._number}.{name}" for name in ("out", "err"))
        job = {
            "call": function, "arguments": arguments, "argv": argv or [function], "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env), "out": str(out), "err": str(err),
        }  # fmt: skip
        return Child(self, self.ask(job), out, err)

    def run(self, function: str, *arguments: Any, **how: Any) -> Done:
        """As ``start``, and wait for the end."""
        return self.start(function, *arguments, **how).done()

    def stop(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def run_code(code: str) -> None:
    """As ``python -c`` does."""
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        elif "look_at" in job:
            answer = os.waitid(os.P_PID, job["look_at"], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        else:
            answer = os.fork() or _do(job)
        print(int(answer), flush=True)


def _do(job: dict[str, Any]) -> int:
    """What the new process does; it never returns."""
    code: Any = 1
    try:
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        sys.argv = job["argv"]
        for name, number, flags in ((os.devnull, 0, os.O_RDONLY), (job["out"], 1, -1), (job["err"], 2, -1)):
            opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if flags < 0 else flags, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        module, _, name = job["call"].partition(":")
        getattr(importlib.import_module(module), name)(*job["arguments"])
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    except BaseException:  # noqa: BLE001  # it must not go on as the parent
        traceback.print_exc()
    finally:
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
