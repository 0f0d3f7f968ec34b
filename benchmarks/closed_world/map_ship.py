"""The cells of the map as maskdpo ships them: ``build-pairs`` and ``train --dry-run`` show the one nearest to pairs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.closed_world.map_plan import BASE, MapCell, MapPlan, Results
from benchmarks.closed_world.map_tables import GREEDY, RATES, Found, found_cells, gains, verdict
from benchmarks.closed_world.measure import FROM_MIX
from benchmarks.closed_world.tables import interval, mean_figures
from maskdpo.io import atomic_write
from maskdpo.verdicts.evidence_map import CELLS, Difference, EvidenceCell, Gain, Method
from maskdpo.verdicts.mix import Mix

METHODS: tuple[Method, ...] = ("mask-dpo", "strict")
DIGITS = 5


def shipped(plan: MapPlan, results: Mapping[MapCell, Results]) -> list[EvidenceCell]:
    """Of the cells whose fresh worlds are all there: the mix of their pairs, and what masks gained. Lines of other
    methods need not be there."""
    anchor = plan.methods[0]
    return [
        EvidenceCell(
            name=found.name,
            worlds=len(found.worlds),
            mix=_mix(found),
            gains={method: _gain(found, method, anchor) for method in METHODS},
        )
        for found in found_cells(replace(plan, methods=(anchor, *METHODS)), results).values()
        if found.worlds == plan.fresh
    ]


def write_shipped(cells: list[EvidenceCell], file: Path) -> None:
    with atomic_write(file) as handle:
        handle.write(CELLS.dump_json(cells, indent=1) + b"\n")


def _mix(found: Found) -> Mix:
    mean = mean_figures(found.rows(BASE))
    return Mix(**{theirs: round(mean[ours], DIGITS) for ours, theirs in FROM_MIX.items()})


def _gain(found: Found, method: Method, over: str) -> Gain:
    def difference(metric: str) -> Difference:
        mean, half = interval(gains(found, method, over, RATES["equal divergence"], metric))
        return Difference(mean=round(mean, DIGITS), half=round(half, DIGITS))

    return Gain(sampled=difference("right / all"), greedy=difference(GREEDY), verdict=verdict(found, method, over))
