"""What of a run can be refused before anything is read, and before other processes start."""

from pathlib import Path

from maskdpo.errors import InputError, UserError
from maskdpo.io.lock import LOCK_SUFFIX
from maskdpo.run_record import META_IN_FOLDER
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.adapter import require_peft
from maskdpo.train.model.fourbit import require_bitsandbytes
from maskdpo.train.run.trackers import require_tracker
from maskdpo.train.settings import RunOptions


def check_options(out: Path, config: TrainConfig, options: RunOptions, processes: int) -> None:
    """
    Raises:
        UserError: options do not go together, or ``out`` holds something that is no run.
    """
    if out.is_file():
        raise InputError("is a file; `out` must name a folder", path=out)
    found = [file for file in out.iterdir() if file.suffix != LOCK_SUFFIX] if out.exists() else []
    if not options.restart and found and not (out / META_IN_FOLDER).exists():
        raise InputError("the folder exists and holds no maskdpo run; name another `out`", path=out)
    if options.eval_file is None and (config.keep_best or options.show_answers):
        raise UserError(
            f"{'`keep_best`' if config.keep_best else '`show_answers`'} needs held-out pairs: `eval_file` PAIRS"
        )
    if options.show_answers and processes > 1:
        raise UserError("`show_answers` works in one process only")
    if config.load_in_4bit and processes > 1:
        raise UserError("`load_in_4bit` works in one process only; without it the model is split among all of them")


def check_packages(config: TrainConfig, options: RunOptions) -> None:
    """
    Raises:
        UserError: a package that the run needs is missing.
    """
    if config.lora_r:
        require_peft()
    if config.load_in_4bit:
        require_bitsandbytes()
    if options.track is not None:
        require_tracker(options.track)
