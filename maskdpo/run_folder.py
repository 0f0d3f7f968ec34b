"""What every training does with the folder of its run: rows of figures, temporary folders, the model, signals."""

import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from maskdpo.console import say
from maskdpo.identity import model_files
from maskdpo.io import atomic_write
from maskdpo.io.write import move_into_place
from maskdpo.redact import shown_model, shown_settings
from maskdpo.run_record import META_IN_FOLDER
from maskdpo.schemas.training import ANSWERS, CALIBRATION, SETTINGS

ADAPTER = "adapter_config.json"

SAME_SIGNAL_S = 1.0
"""Seconds within which a second signal counts as the first one: a scheduler sends a signal to every process, and a
launcher passes its own signal on to its processes."""


def read_rows(file: Path, steps: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a file, up to a step; none where there is no file.

    A line ends at a newline only: texts may hold other characters that ``str.splitlines`` takes for the end of one.
    """
    if not file.exists():
        return []
    *lines, _unfinished = file.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [row for row in rows if steps is None or row["step"] <= steps]


def keep_rows(file: Path, steps: int) -> None:
    """Drop the rows of steps that will be done again, because the run died after its last checkpoint."""
    if file.exists():
        rows = read_rows(file, steps)
        with atomic_write(file) as kept:
            kept.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def fresh_folder(parent: Path, prefix: str) -> Path:
    """A new, empty folder in ``parent``; folders of the same prefix that a killed run has left are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for left_over in parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a finished run. A symbolic link to a folder stays, with the emptied folder."""
    for path in folder.iterdir() if folder.exists() else ():
        shutil.rmtree(path, ignore_errors=True)
    if folder.exists() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def from_anywhere(name: str) -> str:
    """The name of a model, with a path made absolute: a relative path would mean another model in another folder."""
    folder = Path(name).expanduser()
    return str(folder.absolute()) if folder.is_dir() else name


@contextmanager
def moved_in_last_config(out: Path) -> Iterator[Path]:
    """A temporary folder that is moved into ``out`` file by file, the config last, so that a model that loads is whole.

    No file of an earlier model stays in ``out``: no adapter, and no shard that the new model does not have.
    """
    temporary = fresh_folder(out, ".export-")
    try:
        yield temporary
        names = {file.relative_to(temporary) for file in temporary.rglob("*") if file.is_file()}
        for file in model_files(out):
            if file.relative_to(out) not in names:
                file.unlink()
        for name in sorted(names, key=lambda name: (name.name in ("config.json", "adapter_config.json"), name)):
            (temporary / name).chmod(0o644)
            (out / name).parent.mkdir(exist_ok=True)
            move_into_place(temporary / name, out / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], int]]:
    """The number of the signal (Ctrl-C or SIGTERM) that has asked to stop; 0 before one has. The step under way is
    finished, so that only whole steps are saved; a second signal stops at once and leaves the checkpoint before."""
    got, at = 0, 0.0

    def note(number: int, _frame: object) -> None:
        nonlocal got, at
        if not got:
            got, at = number, time.monotonic()
            say(f"{signal.Signals(number).name}: what is under way is finished and saved (a second one stops at once)")
        elif time.monotonic() - at > SAME_SIGNAL_S:
            signal.signal(number, defaults[number])
            signal.raise_signal(number)

    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    in_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, default in defaults.items() if in_main and signal.getsignal(number) is default]
    for number in ours:
        signal.signal(number, note)
    try:
        yield lambda: got
    finally:
        for number in ours:
            signal.signal(number, defaults[number])


def published(folder: Path) -> dict[str, Path | bytes]:
    """The files of a trained model for the Hub: the model, its card and its figures; not the record, which says where
    files lay on this machine.

    Returns:
        By name in the repository, the path of the file; or its content, where that is not the file's own: settings, an
        adapter and the calibration of a judge name a model out of a folder by that folder's name alone.
    """
    found = sorted({file for file in folder.iterdir() if file.is_file()} | set(model_files(folder)))
    files: dict[str, Path | bytes] = {
        file.relative_to(folder).as_posix(): file
        for file in found
        if not file.name.startswith(".") and file.name not in (META_IN_FOLDER, ANSWERS)
    }
    shown = shown_settings(yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8")))
    files[SETTINGS] = yaml.safe_dump(shown, sort_keys=False).encode()
    if ADAPTER in files:
        adapter = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        adapter["base_model_name_or_path"] = shown["model"]
        files[ADAPTER] = json.dumps(adapter, indent=2, sort_keys=True).encode()
    if CALIBRATION in files:
        calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        calibration["judge"]["model"] = shown_model(calibration["judge"]["model"])
        files[CALIBRATION] = json.dumps(calibration, indent=2).encode()
    return files
