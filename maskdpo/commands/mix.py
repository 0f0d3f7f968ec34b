"""The mix of pairs, as ``build-pairs`` and ``train --dry-run`` print it."""

from typing import TYPE_CHECKING

from maskdpo import console

if TYPE_CHECKING:
    from maskdpo.verdicts.evidence_map import Difference, EvidenceCell
    from maskdpo.verdicts.mix import Mix


def show_mix(mix: "Mix", *, unit: str, of: str = "the pairs", method: str = "mask-dpo") -> None:
    """Print the figures beside those of the nearest cell of the map, and what masks gained in that cell.

    Args:
        unit: what ``mix.left_out`` counts; that of a cell counts tokens.
        of: whose mix it is, for the title.
        method: whose masks leave it out.
    """
    from maskdpo.verdicts.evidence_map import FAR, nearest_cell, read_map

    cells = read_map()
    cell = nearest_cell(mix, cells)
    apart = " (cell: of tokens)" if cell is not None and unit != "tokens" else ""
    figures = {
        "share of wrong sentences in chosen answers": "wrong_of_chosen",
        "share of right sentences in rejected answers": "right_of_rejected",
        f"share of {unit} that the masks of {method} leave out{apart}": "left_out",
        "mean margin of right / all sentences": "margin",
        "sentences per answer": "sentences_per_answer",
    }
    rows = [[title, getattr(mix, name)] for title, name in figures.items()]
    if cell is not None:
        known = cell.mix if method == "mask-dpo" else cell.mix.model_copy(update={"left_out": None})
        rows = [[*row, getattr(known, name)] for row, name in zip(rows, figures.values(), strict=True)]
    columns = ["", "these pairs", *([cell.name] if cell is not None else [])]
    meant = "docs/pairs.md says what these figures mean; where masks leave little out, Mask-DPO is nearly DPO."
    none_near = (
        f"No cell of the map of docs/evidence.md is nearer to these pairs than {FAR:g}, so the map does not say "
        "whether masks help with them: to find out, train with `--method strict` and with `--method dpo`, and compare."
    )
    console.table(f"mix of {of}", columns, rows, [meant, *([none_near] if cells and cell is None else [])])
    if cell is not None:
        _show_cell(cell)


def _show_cell(cell: "EvidenceCell") -> None:
    from maskdpo.verdicts.evidence_map import LIMITS

    console.table(
        f"nearest cell of the map of docs/evidence.md: {cell.name}, {cell.worlds} worlds; right / all less DPO near "
        "equal divergence, with 95% intervals",
        ("method", "sampled answers", "greedy answers", "by the protocol"),
        [
            (method, _interval(gain.sampled), _interval(gain.greedy), gain.verdict)
            for method, gain in cell.gains.items()
        ],
        ["`wins` and `loses` need two figures of sampled answers at two learning rates to agree.", LIMITS],
    )


def _interval(difference: "Difference") -> str:
    return f"{difference.mean:+.3f} ± {difference.half:.3f}"
