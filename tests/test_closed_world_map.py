"""The map of the closed world: which runs come next, what is chosen, and the tables made of its lines."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # another package called benchmarks is among the installed ones

from benchmarks.closed_world.cells import make_base, make_pool
from benchmarks.closed_world.map import RESULTS, execute, main, run_all
from benchmarks.closed_world.map_plan import (
    BASE,
    FULL,
    QUICK,
    MapCell,
    MapPlan,
    Results,
    Run,
    develop,
    next_runs,
    results_in,
)
from benchmarks.closed_world.map_ship import shipped, write_shipped
from benchmarks.closed_world.map_tables import found_cells, report, sharing_worlds
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS, most_kept, small_margin
from benchmarks.closed_world.run import Jobs
from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.strategies import Eligible, Strategy
from maskdpo.schemas import Counts
from maskdpo.verdicts import evidence_map
from maskdpo.verdicts.evidence_map import nearest_cell, read_map
from maskdpo.verdicts.mix import Mix

CELL = MapCell(2, "small-margin")
PLAN = MapPlan({}, (CELL, MapCell(1, "best-worst")), ("dpo", "mask-dpo"), (91, 92), (1, 2, 3), (1e-5, 2e-5, 4e-5))
MIX = {"wrong_of_chosen": 0.5, "right_of_rejected": 0.3, "tokens_left_out": 0.4, "margin": 0.1}
MIX |= {"sentences_of_pair": 8.0}


def made_up(run: Run, best: float = 2e-5, bonus: float = 0.02) -> Figures:
    """Figures of an alignment: best at one rate, and twice as far from the reference with masks."""
    right = 0.5 - 0.1 * abs(run.lr / best - 1) + 0.01 * (run.world % 7) + bonus * (run.method == "mask-dpo")
    figures = {"right_of_all": right, "right": 8 * right, "wrong": 8 - 8 * right, "no_fact": 0.5, "sentences": 8.0}
    figures |= {"malformed": 0.0, "repeated": 0.0, "greedy_right_of_all": right, "kl": 1e4 * run.lr}
    return figures | (MIX if run.method == BASE else {"kl": 1e4 * run.lr * (1 + (run.method == "mask-dpo"))})


def fill(
    plan: MapPlan, results: Mapping[MapCell, Results], best: float = 2e-5, bonus: float = 0.02, steps: int = 99
) -> None:
    while steps and (runs := next_runs(plan, results)):
        steps -= 1
        for cell, run in runs:
            results[cell].add(run, made_up(run, best, bonus))


def test_development_of_all_cells_comes_before_any_fresh_world(tmp_path: Path) -> None:
    results, worlds = results_in(tmp_path, PLAN), []
    while runs := next_runs(PLAN, results):
        worlds.append({run.world for _, run in runs})
        for cell, run in runs:
            results[cell].add(run, made_up(run))
    assert {91, 92} == set().union(*worlds[:-2]) and worlds[-2:] == [{1, 2, 3}, {1, 2, 3}]
    lines = {file.name: len(file.read_text().splitlines()) for file in tmp_path.iterdir()}
    assert lines["8-small-margin.jsonl"] == 2 * (1 + 2 * 3) + 3 * (1 + 1 + 2)
    choices = develop(PLAN, results[CELL]).choices
    assert choices["dpo"].best_lr == choices["dpo"].equal_lr == choices["mask-dpo"].best_lr == 2e-5
    assert choices["mask-dpo"].equal_lr == pytest.approx(1e-5)


def test_a_grid_is_widened_where_its_edge_is_best_at_most_twice(tmp_path: Path) -> None:
    for name, best, grid in (
        ("up", 8e-5, (1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4)),
        ("down", 1e-6, (2.5e-6, 5e-6, 1e-5, 2e-5, 4e-5)),
    ):
        results = results_in(tmp_path / name, PLAN)
        fill(PLAN, results, best)
        assert develop(PLAN, results[CELL]).curves["dpo"].grid == grid


def test_lines_survive_a_kill_and_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    fill(PLAN, results_in(tmp_path, PLAN))
    file = tmp_path / "8-small-margin.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    again = results_in(tmp_path, PLAN)
    assert len(next_runs(PLAN, again)) == 1
    fill(PLAN, again)
    assert file.read_bytes() == whole


def test_models_and_answers_that_cells_share_are_made_once(tmp_path: Path) -> None:
    class Listed(Jobs):
        def __init__(self) -> None:
            self.asked: dict[Any, list[Any]] = {}

        def run(self, task: Any, calls: Any, finished: Any = None) -> None:
            self.asked.setdefault(task, []).append(calls)
            for call in calls if task is execute else ():
                finished(call, made_up(call[2]))

    cells = (CELL, MapCell(2, "best-worst"), MapCell(4, "best-worst"))
    plan = replace(PLAN, bases=QUICK.bases, cells=cells)
    run_all(plan, results_in(tmp_path, plan), tmp_path, jobs := Listed())
    assert [world for _, world in jobs.asked[make_base][0]] == [91, 92]
    assert {(pool.size, pool.world) for _, pool in jobs.asked[make_pool][0]} == {(2, 91), (2, 92), (4, 91), (4, 92)}
    assert (len(jobs.asked[make_pool][0]), len(jobs.asked[execute][0])) == (4, 6)
    assert next_runs(plan, results_in(tmp_path, plan)) == []


def test_tables_and_figure_are_made_of_the_lines(tmp_path: Path) -> None:
    results = results_in(tmp_path, PLAN)
    assert "8-small-margin |" not in report(PLAN, results, tmp_path)
    fill(PLAN, results, steps=5)  # the first cell's fresh worlds are the last that this reaches
    text = report(PLAN, results, tmp_path)
    gain = next(line for line in text.splitlines() if line.startswith("| 8-small-margin | 3 | 0."))
    assert gain.endswith("| +0.020 ± 0.000 * |")
    assert text.count("## greedy: right / all, ") == 2
    assert "| 8-small-margin | 3 | undecided |" in text  # masks lose near equal divergence, at half the rate
    for bonus, verdict in ((0.2, "wins"), (-0.2, "loses")):
        fill(PLAN, others := results_in(tmp_path / verdict, PLAN), bonus=bonus)
        assert f"| 8-small-margin | 3 | {verdict} |" in report(PLAN, others, tmp_path)
    assert (
        "| 8-small-margin | 3 fresh | " in text
        and "| 2e-05 | 1e-05 | 0.475 | 1e-05: 0.475 " in text
        and "(edge)" not in text
    )
    assert (tmp_path / "closed_world_map.png").stat().st_size > 1000


def test_methods_on_other_pairs_of_the_same_answers_are_compared_with_dpo_on_the_first(tmp_path: Path) -> None:
    """Cells with other answers are not among them."""
    plan = replace(PLAN, cells=(MapCell(2, "best-worst"), MapCell(1, "best-worst"), MapCell(2, "small-margin")))
    results = results_in(tmp_path, plan)
    fill(plan, results)
    assert [[found.name for found in cells] for cells in sharing_worlds(found_cells(plan, results))] == [
        ["8-best-worst", "8-small-margin"]
    ]
    table = report(plan, results, tmp_path).split("gains over dpo on 8-best-worst, best rates")[1]
    row = next(line for line in table.splitlines() if line.startswith("| 8-small-margin | Mask-DPO |"))
    assert row.startswith("| 8-small-margin | Mask-DPO | 2e-05 |") and row.count("| +0.020 ± 0.000 * |") == 1


def test_cells_are_shipped_when_their_worlds_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, methods=("dpo", "chosen-only", "mask-dpo", "strict"))
    results = results_in(tmp_path / "lines", PLAN)
    shipping = replace(plan, methods=("dpo", "mask-dpo", "strict"))  # lines of others need not be there
    while runs := [line for line in next_runs(shipping, results) if line[1].world != PLAN.fresh[-1]]:
        for cell, run in runs:
            results[cell].add(run, made_up(run))
    assert shipped(plan, results) == []
    fill(shipping, results, steps=1)
    [known] = shipped(plan, results)
    monkeypatch.setattr(evidence_map, "FILE", tmp_path / "map.json")
    write_shipped([known], tmp_path / "map.json")
    assert read_map() == [known]
    assert (known.name, known.worlds, known.mix.left_out, known.mix.sentences_per_answer) == (
        "8-small-margin",
        3,
        0.4,
        8.0,
    )
    gain = known.gains["mask-dpo"]
    assert (gain.sampled.mean, gain.sampled.half) == (-0.03, 0.0)  # half the rate, and the bonus of masks
    assert (gain.greedy.mean, gain.verdict) == (-0.03, "undecided")
    assert known.gains["strict"].sampled.mean == 0
    near = Mix(wrong_of_chosen=0.5, right_of_rejected=0.3, left_out=0.1, margin=0.9, sentences_per_answer=8)
    assert nearest_cell(near, read_map()) == known


def test_the_shipped_map_is_that_of_the_lines(tmp_path: Path) -> None:
    """If this fails: ``python -m benchmarks.closed_world.map --tables --ship``."""
    if RESULTS.exists():
        shutil.copytree(RESULTS, tmp_path / "lines")
    assert read_map() == shipped(FULL, results_in(tmp_path / "lines", FULL))


def test_pairs_are_of_close_answers_or_of_those_whose_sentences_train_most() -> None:
    shares = {"a": (3, 1), "b": (2, 2), "c": (2, 3), "d": (0, 4)}
    answers = [
        Candidate(name, "q", Path("f"), 1, right / (right + wrong), Counts(right, wrong), 9, name.encode(), True)
        for name, (right, wrong) in shares.items()
    ]
    options = PairOptions(min_margin=0.0)

    def pairs(strategy: Strategy) -> set[tuple[str, str]]:
        return {(pair.chosen.id, pair.rejected.id) for pair in strategy(Eligible.of(answers, options), options)}

    assert pairs(small_margin) == {("b", "c")}
    assert pairs(most_kept) == {("a", "d")}
    answers[3] = answers[3]._replace(counts=Counts(0, 2))
    assert pairs(most_kept) == {("a", "c")}


def test_the_named_cells_are_nine_and_their_seeds_are_fresh() -> None:
    assert len({cell.name for cell in FULL.cells}) == 9 and {cell.base for cell in FULL.cells} == set(FULL.bases)
    assert set(FULL.methods) <= set(METHODS)
    assert not {*FULL.fresh, *FULL.development} & {1, 9001, 9002, *range(101, 111), *QUICK.development, *QUICK.fresh}


@pytest.mark.slow
def test_the_quick_map_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "lines")]
    main(arguments)
    first = capsys.readouterr().out
    lines = {file: file.read_bytes() for file in (tmp_path / "lines").glob("*.jsonl")}
    assert len(lines) == 1
    main([*arguments, "--tables"])
    again = capsys.readouterr().out
    assert first.endswith(again) and "| 8-small-margin | 1 | " in again
    assert lines == {file: file.read_bytes() for file in lines}
