"""The page of a training: the figures that ``train`` wrote into a run's folder (``schemas.training``), as curves.

What the page can do is in ``templates/training/*.js``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from maskdpo.console import counted, warn
from maskdpo.errors import InputError, first_problem
from maskdpo.html.render import Payload, SummaryTable, render
from maskdpo.io import atomic_write, open_bytes
from maskdpo.run_record import META_IN_FOLDER, RunMeta, read_meta
from maskdpo.schemas.training import EVALS, METRICS, EvalStats, StepStats

FILES = (METRICS, EVALS, META_IN_FOLDER)
"""The files of the folder of a training that the page is made of."""

DRAWN = (
    "step", "loss", "margin", "accuracy", "reward_kept_chosen", "reward_kept_rejected", "reward_masked_chosen",
    "reward_masked_rejected", "tokens_per_s", "pairs_per_s", "peak_share", "memory_gb", "grad_norm", "lr", "seconds",
)  # fmt: skip
"""The figures of a step or an evaluation that the page shows, where they are known."""

SCRIPTS = ("training/data", "training/axes", "training/panels", "training/start")

StatsT = TypeVar("StatsT", bound=EvalStats)


@dataclass(frozen=True)
class Training:
    """The figures and the settings of a run, as its files have them."""

    name: str
    steps: list[StepStats]
    evals: list[EvalStats]
    record: RunMeta | None


@dataclass(frozen=True)
class TrainingStats:
    """What went into a page."""

    runs: int
    steps: int
    evals: int
    broken: int
    """Steps whose loss is no finite number."""
    bytes: int

    def counts(self) -> list[tuple[str, int]]:
        """The figures that the command prints."""
        return [
            ("runs", self.runs),
            ("steps", self.steps),
            ("evaluations on held-out pairs", self.evals),
            ("size, kB", round(self.bytes / 1000)),
        ]


def training_folder(path: Path) -> Path | None:
    """The folder of a training, given the folder or its metrics file; None where the path is something else."""
    if path.name == METRICS:
        return path.parent
    return path if (path / METRICS).exists() else None


def write_training_page(out: Path, folders: Sequence[Path], *, title: str | None = None) -> TrainingStats:
    """Write the page for one training, or for several whose curves share their axes."""
    runs = [read_training(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    payload: Payload = {"runs": [_payload(run) for run in runs]}
    tables = [_results(runs), *_settings(runs)]
    page = render(
        "maskdpo.evaluate",
        "training.html.j2",
        SCRIPTS,
        payload,
        title or f"Training: {', '.join(r.name for r in runs)}",
        tables,
    )
    with atomic_write(out) as file:
        file.write(page)
    broken = sum(not isfinite(step.loss) for run in runs for step in run.steps)
    if broken:
        warn(f"{counted(broken, 'step has', 'steps have')} a loss that is no finite number: gaps in the curves")
    return TrainingStats(
        runs=len(runs),
        steps=sum(len(run.steps) for run in runs),
        evals=sum(len(run.evals) for run in runs),
        broken=broken,
        bytes=len(page),
    )


def read_training(folder: Path, name: str) -> Training:
    """The figures of a run, which may still be under way.

    Raises:
        InputError: there are no steps, or a line is not valid.
    """
    steps = list(_rows(folder / METRICS, StepStats))
    if not steps:
        message = "holds no step yet: the training has not begun, or stopped before its first one"
        raise InputError(message, path=folder / METRICS)
    evals = list(_rows(folder / EVALS, EvalStats)) if (folder / EVALS).exists() else []
    return Training(name, steps, evals, read_meta(folder / META_IN_FOLDER))


def _rows(file: Path, model: type[StatsT]) -> Iterator[StatsT]:
    """All complete lines: a last line without a line break is still being written."""
    with open_bytes(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                field, message = first_problem(error)
                message += "; this is no line that maskdpo train writes"
                raise InputError(message, path=file, line=number, field=field) from None


def _names(folders: Sequence[Path]) -> list[str]:
    """Different names for the runs: those of the folders, or the paths as they were given where two names are equal."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _payload(run: Training) -> Payload:
    """The figures by column: a tenth of the size of rows, and the form that curves need."""
    return {
        "name": run.name,
        "steps": _columns(run.steps),
        "evals": _columns(run.evals) if run.evals else None,
    }


def _columns(rows: Sequence[EvalStats]) -> Payload:
    columns = {name: [_short(_value(row, name)) for row in rows] for name in DRAWN}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _short(value: float | None) -> float | None:
    """Rounded to six digits, more than a curve shows."""
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")


def _results(runs: Sequence[Training]) -> SummaryTable:
    """The results, one column per run: the first and the last value, or one of them."""
    rows = [
        ("steps", [f"{run.steps[-1].step:,}{_state(run)}" for run in runs]),
        ("loss", [_change(run.steps, "loss") for run in runs]),
        ("loss, held out", [_change(run.evals, "loss") for run in runs]),
        ("lowest held-out loss", [_lowest(run.evals) for run in runs]),
        ("margin", [_change(run.steps, "margin") for run in runs]),
        ("margin, held out", [_change(run.evals, "margin") for run in runs]),
        ("accuracy, held out", [_change(run.evals, "accuracy") for run in runs]),
        ("reward of masked tokens, chosen", [_change(run.steps, "reward_masked_chosen") for run in runs]),
        ("reward of masked tokens, rejected", [_change(run.steps, "reward_masked_rejected") for run in runs]),
        ("tokens / s, median", [_median(run.steps, "tokens_per_s", ",.0f") for run in runs]),
        ("pairs / s, median", [_median(run.steps, "pairs_per_s", ".3g") for run in runs]),
        ("share of the device's peak, median", [_median(run.steps, "peak_share", ".1%") for run in runs]),
        ("peak memory, GB", [_last(run.steps, "memory_gb", ".1f") for run in runs]),
    ]
    shown = [(name, *cells) for name, cells in rows if any(cell != "-" for cell in cells)]
    return SummaryTable("What came out (first → last)", ("", *(run.name for run in runs)), shown)


def _state(run: Training) -> str:
    return " (not finished)" if run.record is not None and run.record.status == "running" else ""


def _values(rows: Sequence[EvalStats], name: str) -> list[float]:
    return [value for row in rows if (value := _value(row, name)) is not None]


def _value(row: EvalStats, name: str) -> float | None:
    """A figure; None, a gap in the curve, where the row has none or where it is not a finite number."""
    value: float | None = getattr(row, name, None)
    return value if value is not None and isfinite(value) else None


def _change(rows: Sequence[EvalStats], name: str) -> str:
    values = _values(rows, name)
    return f"{values[0]:.3f} → {values[-1]:.3f}" if values else "-"


def _lowest(evals: Sequence[EvalStats]) -> str:
    losses = [(stats.loss, stats.step) for stats in evals if isfinite(stats.loss)]
    return "{:.3f} at step {}".format(*min(losses)) if losses else "-"


def _median(rows: Sequence[EvalStats], name: str, form: str) -> str:
    values = sorted(_values(rows, name))
    return format(values[len(values) // 2], form) if values else "-"


def _last(rows: Sequence[EvalStats], name: str, form: str) -> str:
    values = _values(rows, name)
    return format(values[-1], form) if values else "-"


def _settings(runs: Sequence[Training]) -> Iterator[SummaryTable]:
    """The settings that are recorded; of several runs those that differ."""
    if not any(run.record for run in runs):
        return
    options = [run.record.options if run.record else {} for run in runs]
    names = list(dict.fromkeys(name for of_run in options for name in of_run))
    rows = [(name, *("" if of_run.get(name) is None else str(of_run[name]) for of_run in options)) for name in names]
    rows = [row for row in rows if any(row[1:])] if len(runs) == 1 else [row for row in rows if len(set(row[1:])) > 1]
    title = "Settings" if len(runs) == 1 else "Settings that differ"
    yield SummaryTable(title, ("", *(run.name for run in runs)), rows or [("none", *("" for _ in runs))])
