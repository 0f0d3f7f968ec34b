"""What ``train_vs_trl.py`` makes of its runs: a table, the aims, JSON, and the curve of speed against memory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from maskdpo import console
from maskdpo.io.plot import new_plot, save_plot

AIMS = {"Mask-DPO": 3.6, "DPO": 3.0}
"""Times the speed of TRL at its best, in the regime of real models."""
SHARE_AIM, MEMORY_AIM = 0.6, 0.6
"""Of the matrix rate; and of the memory of TRL at its best, at no less speed."""


@dataclass(frozen=True)
class Line:
    """Medians over the runs of one contender."""

    name: str
    runs: int
    pairs_per_s: float
    memory_gb: float
    reference_s_per_pair: float | None
    """None where the reference is computed in every step."""
    share: float
    """Of the matrix rate."""
    losses: tuple[float, ...]

    @property
    def side(self) -> str:
        """TRL, Mask-DPO or DPO."""
        return self.name.split(",")[0]

    @property
    def tuned(self) -> bool:
        """TRL with other settings than its defaults."""
        return self.side == "TRL" and self.name != "TRL, defaults"


def report(runs: Sequence[dict[str, Any]], setup: dict[str, Any], out: Path) -> None:
    measured = [run for run in runs if "step_s" in run]
    if not measured:
        console.warn("nothing was measured")
        return
    rate = median(run["rate"] for run in measured)
    lines = [_line(name, measured, setup["batch"], rate) for name in dict.fromkeys(run["name"] for run in measured)]
    base = max((line.pairs_per_s for line in lines if line.tuned), default=None)
    title = ", ".join(f"{name} {value}" for name, value in setup.items() if value is not None)
    console.table(
        f"{title}; {rate / 1e9:.0f} GFLOPS in plain products",
        ("", "pairs/s", "times TRL's best", "peak GB", "of the matrix rate", "reference, s/pair", "losses", "runs"),
        [
            (
                line.name,
                f"{line.pairs_per_s:.4g}",
                f"{line.pairs_per_s / base:.2f}" if base else "-",
                f"{line.memory_gb:.1f}",
                f"{line.share:.0%}",
                "in every step" if line.reference_s_per_pair is None else f"{line.reference_s_per_pair:.2f}",
                " ".join(f"{loss:.5f}" for loss in line.losses),
                line.runs,
            )
            for line in lines
        ],
        notes=_notes(runs, lines),
    )
    aims = _aims(lines)
    console.table("aims for real models", ("", "aim", "measured"), aims)
    name = Path(str(setup["regime"])).stem
    figures = {"setup": setup, "rate": rate, "lines": [asdict(line) for line in lines], "aims": aims, "runs": runs}
    (out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    _draw(lines, f"{name}: speed and memory", out / f"{name}.png")
    console.say(f"written: {out / name}.json, {out / name}.png")


def _line(name: str, runs: Sequence[dict[str, Any]], batch: int, rate: float) -> Line:
    own = [run for run in runs if run["name"] == name]
    seconds = median(second for run in own for second in run["step_s"][1:] or run["step_s"])
    reference = own[0]["reference_s"]
    return Line(
        name=name,
        runs=len(own),
        pairs_per_s=batch / seconds,
        memory_gb=median(run["memory_gb"] for run in own),
        reference_s_per_pair=reference and median(run["reference_s"] for run in own) / batch,
        share=own[0]["flops"] / seconds / rate,
        losses=tuple(own[0]["losses"]),
    )


def _notes(runs: Sequence[dict[str, Any]], lines: Sequence[Line]) -> list[str]:
    notes = [f"{run['name']} does not run here: {run['refused']}" for run in runs if run.get("refused")]
    notes += [f"{run['name']} failed: {run['failed']}" for run in runs if "failed" in run]
    first = [line.losses[0] for line in lines]
    if max(first) - min(first) > 1e-2:
        notes.append(f"first losses differ: {min(first):.5f} to {max(first):.5f}; these runs are not comparable")
    return notes


def _aims(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """(what, aim, measured), of the runs that are there."""
    best = max((line for line in lines if line.tuned), key=lambda line: line.pairs_per_s, default=None)
    rows = []
    for side, times in AIMS.items():
        own = max((line for line in lines if line.side == side), key=lambda line: line.pairs_per_s, default=None)
        if own is None:
            continue
        if best:
            rows.append((f"{side}: times TRL's best", f"{times}", f"{own.pairs_per_s / best.pairs_per_s:.2f}"))
        rows.append((f"{side}: of the matrix rate", f"{SHARE_AIM:.0%}", f"{own.share:.0%}"))
        as_quick = [line for line in lines if best and line.side == side and line.pairs_per_s >= best.pairs_per_s]
        if best and as_quick:
            least = min(as_quick, key=lambda line: line.memory_gb)
            share = f"{least.memory_gb / best.memory_gb:.2f} ({least.name})"
            rows.append((f"{side}: of the memory of TRL's best, at no less speed", f"{MEMORY_AIM}", share))
    return rows


def _draw(lines: Sequence[Line], title: str, path: Path) -> None:
    """One curve for each method, through its runs in order of memory."""
    figure, [axes] = new_plot(8, 5)
    for side in dict.fromkeys(line.side for line in lines):
        own = sorted((line for line in lines if line.side == side), key=lambda line: line.memory_gb)
        axes.plot([line.memory_gb for line in own], [line.pairs_per_s for line in own], "o-", label=side)
        for line in own:
            note = line.name.partition(", ")[2]
            place = (line.memory_gb, line.pairs_per_s)
            axes.annotate(note, place, fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set(xlabel="peak memory, GB", ylabel="pairs per second", title=title)
    axes.set_xlim(0, 1.2 * max(line.memory_gb for line in lines))  # room for the last note
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    save_plot(figure, path)
