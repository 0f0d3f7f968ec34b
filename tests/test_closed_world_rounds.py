"""Rounds in the closed world: which runs come next, at which rates, what a round is trained on, and the tables."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # another package called benchmarks is among the installed ones

from benchmarks.closed_world import cells, map_plan
from benchmarks.closed_world.cells import Folder, Pool, Setting, make_base, make_pool
from benchmarks.closed_world.map_plan import BASE, MapCell, Results, Row, Run
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.rounds import execute, main, run_all
from benchmarks.closed_world.rounds_plan import ARMS, FULL, MIX, QUICK, RoundsPlan, develop_rounds, next_runs, parts_of
from benchmarks.closed_world.rounds_tables import report
from benchmarks.closed_world.run import Jobs
from maskdpo.io import read_prompts, read_records
from maskdpo.schemas import Pair, Prompt
from maskdpo.train.config import TrainConfig

CELL = MapCell(2, "best-worst")
PLAN = RoundsPlan(
    map_plan.MapPlan({}, (CELL,), ("dpo", "mask-dpo"), (91, 92), (1, 2, 3), (1e-5, 2e-5, 4e-5)),
)


def made_up(run: Run, gain: float) -> Figures:
    """One round is best at 2e-5, rounds with the reference renewed are at 1e-5, with the reference kept at 2e-5."""
    method, arm = PLAN.taken_apart(run.method)
    best = 1e-5 if arm == "renewed" else 2e-5
    right = 0.5 - 0.1 * abs(run.lr / best - 1) * (method != BASE) + 0.01 * (run.world % 7)
    right += (gain if arm else 0.0) + (0.02 if method == "mask-dpo" else 0.0) + (0.01 if arm == "kept" else 0.0)
    figures = {"right_of_all": right, "right": 8 * right, "wrong": 8 - 8 * right, "no_fact": 0.5, "sentences": 8.0}
    figures |= {"malformed": 0.0, "repeated": 0.0, "greedy_right_of_all": right, "pairs": 150, "kl": 1e4 * run.lr}
    ends = [f"_{n}" for n in range(1, PLAN.rounds + 1)] if arm else [""]
    return figures | {name + end: 0.3 for name in MIX for end in ends}


def map_lines(folder: Path, plan: RoundsPlan) -> Results:
    """Those of the map's development worlds, for one round."""
    lines = Results(folder, plan.cell.name)
    while missing := map_plan.develop(plan.map, lines).missing:
        for run in missing:
            lines.add(run, made_up(run, 0.0))
    return lines


def fill(of_map: Results, results: Results, gain: float = 0.1) -> list[set[int]]:
    """Add all lines; returns the worlds of each step."""
    worlds = []
    while runs := next_runs(PLAN, of_map, results):
        worlds.append({run.world for run in runs})
        for run in runs:
            results.add(run, made_up(run, gain))
    return worlds


def test_rates_for_rounds_are_chosen_on_the_development_worlds_before_any_fresh_world(tmp_path: Path) -> None:
    of_map, results = map_lines(tmp_path / "map", PLAN), Results(tmp_path / "rounds", PLAN.cell.name)
    assert fill(of_map, results) == [{91, 92}, {91, 92}, {1, 2, 3}], "the grid is made wider once, below its edge"
    rates = develop_rounds(PLAN, of_map, results).rates
    best = {"": 2e-5, "-renewed": 1e-5, "-kept": 2e-5}
    assert rates == {method + end: rate for method in PLAN.map.methods for end, rate in best.items()}
    rows = list(read_records(tmp_path / "rounds" / "8-best-worst.jsonl", Row))
    assert len([row for row in rows if row.world in PLAN.map.fresh]) == 3 * (1 + 2 * 3)
    assert all(PLAN.taken_apart(row.method)[1] for row in rows if row.world in PLAN.map.development)
    again = Results(tmp_path / "rounds", PLAN.cell.name)
    assert next_runs(PLAN, of_map, again) == []


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "better"), (-0.1, "worse")])
def test_tables_are_made_of_the_lines(gain: float, verdict: str, tmp_path: Path) -> None:
    of_map, results = map_lines(tmp_path / "map", PLAN), Results(tmp_path / "rounds", PLAN.cell.name)
    fill(of_map, results, gain)
    text = report(PLAN, develop_rounds(PLAN, of_map, results), results)
    shown = [f"{value:+.3f} ± 0.000 *" for value in (gain, gain + 0.01, -0.01)]
    assert f"| DPO | right / all | {' | '.join(shown)} |" in text
    assert f"| Mask-DPO | verdict | {verdict} | {verdict} | worse |" in text
    assert "| Mask-DPO | right / all | +0.020 ± 0.000 * | +0.020 ± 0.000 * | +0.020 ± 0.000 * |" in text
    assert "| DPO, 3 rounds, reference kept | 2e-05 | " in text and "(3 fresh worlds)" in text
    assert "| DPO, 3 rounds, reference renewed | 0.30, 0.30, 0.30 | " in text
    assert "| DPO, 3 rounds, reference renewed | 1e-05 | 5e-06: " in text and "(edge)" not in text


def test_tables_of_a_part_of_the_lines(tmp_path: Path) -> None:
    of_map, results = map_lines(tmp_path / "map", PLAN), Results(tmp_path / "rounds", PLAN.cell.name)
    assert "fresh worlds" not in report(PLAN, develop_rounds(PLAN, of_map, results), results)
    for _ in range(2):
        for run in next_runs(PLAN, of_map, results):
            results.add(run, made_up(run, 0.1))
    for run in next_runs(PLAN, of_map, results):
        if run.world < 3:
            results.add(run, made_up(run, 0.1))
    assert "(2 fresh worlds)" in report(PLAN, develop_rounds(PLAN, of_map, results), results)


def test_rounds_ask_different_questions_and_as_many() -> None:
    prompts = [Prompt(id=f"{i}", prompt="?") for i in range(20)]
    parts = parts_of(prompts, 3, 99, seed=5)
    assert [len(part) for part in parts] == [6, 6, 6]
    assert len({prompt.id for part in parts for prompt in part}) == 18
    assert parts == parts_of(prompts, 3, 99, seed=5) != parts_of(prompts, 3, 99, seed=6)
    assert [len(part) for part in parts_of(prompts, 2, 5, seed=5)] == [6, 6], "a few more than pairs"


def test_the_seeds_are_fresh_and_the_cell_is_one_of_the_map() -> None:
    of_map = map_plan.FULL
    assert FULL.cell in of_map.cells and set(FULL.map.methods) <= set(of_map.methods)
    assert (FULL.map.development, FULL.map.grid, FULL.map.bases) == (of_map.development, of_map.grid, of_map.bases)
    used = {1, 9001, 9002, *range(101, 111), *range(3001, 3006), *range(3101, 3106), *range(9901, 9910)}
    assert not set(FULL.map.fresh) & {*used, *of_map.development}


def test_without_the_lines_of_the_map_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"such as base at 0 in world 9101\. .* benchmarks.closed_world.map first"):
        main(["--map-results", str(tmp_path / "map"), "--results", str(tmp_path / "rounds")])
    assert not (tmp_path / "rounds").exists()


SMALL_SETTING = Setting(14, 2, pretrain_steps=80, samples=4, epochs=1, eval_samples=1, sizes=(1,), pair_share=1.0)
SMALL = RoundsPlan(
    replace(QUICK.map, bases={"standard": SMALL_SETTING}, cells=(MapCell(1, "best-worst"),)),
    rounds=2,
)


def test_every_line_of_a_group_is_kept(tmp_path: Path) -> None:
    class MadeUp(Jobs):
        def __init__(self) -> None:
            self.groups: list[list[Run]] = []

        def run(self, task: Any, calls: Any, finished: Any = None) -> None:
            for call in calls if task is execute else ():
                self.groups.append(call[2])
                finished(call, [made_up(run, 0.1) for run in call[2]])

    plan = replace(PLAN, map=replace(PLAN.map, bases=SMALL.map.bases))
    of_map, results = map_lines(tmp_path / "map", plan), Results(tmp_path / "rounds", plan.cell.name)
    run_all(plan, of_map, results, tmp_path, jobs := MadeUp())
    again = Results(tmp_path / "rounds", plan.cell.name)
    assert next_runs(plan, of_map, again) == [] and {len(group) for group in jobs.groups} == {1, len(ARMS)}
    for run in (run for group in jobs.groups for run in group):
        assert again[run] == pytest.approx(made_up(run, 0.1), rel=1e-5)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A base model and the pairs of its answers."""
    folder = Folder(tmp_path_factory.mktemp("small"), SMALL_SETTING)
    make_base(folder, 9903)
    make_pool(folder, Pool(9903, size=1))
    return folder


@pytest.mark.slow
def test_a_round_without_pairs_keeps_the_model_and_is_left_out_of_the_tables(
    small_world: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "kept"))
    run = Run(9903, "dpo-kept", 1.0)
    (found,) = execute(SMALL, small_world, [run])  # at this rate a model says nothing that is right any more
    assert found["right"] == 0 and found["pairs"] > 0
    assert {f"{name}_1" for name in MIX} <= found.keys() and not {f"{name}_2" for name in MIX} & found.keys()
    results = Results(tmp_path / "rounds", SMALL.cell.name)
    results.add(run, found)
    assert Results(tmp_path / "rounds", SMALL.cell.name)[run] == pytest.approx(found, rel=1e-5)


def test_a_round_that_had_no_pairs_in_any_world_has_no_shares_in_the_tables(tmp_path: Path) -> None:
    of_map, results = map_lines(tmp_path / "map", PLAN), Results(tmp_path / "rounds", PLAN.cell.name)
    while runs := next_runs(PLAN, of_map, results):
        for run in runs:
            figures = made_up(run, 0.1)
            lost = {f"{name}_3" for name in MIX} if run.method == "dpo-kept" else set[str]()
            lost |= {f"{name}_2" for name in MIX} if run.method == "dpo-kept" and run.world == 1 else set()
            results.add(run, {name: value for name, value in figures.items() if name not in lost})
    text = report(PLAN, develop_rounds(PLAN, of_map, results), results)
    row = "| DPO, 3 rounds, reference kept | 0.30, 0.30, 0.30 | 0.30, 0.30, 0.30 | -, -, - |"
    assert row in text


@pytest.mark.slow
def test_each_round_trains_the_model_before_on_answers_of_its_own(
    small_world: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[list[Pair], TrainConfig]] = []
    train = cells.train

    def spy(pairs: Path, out: Path, config: TrainConfig, *given: Any) -> Any:
        trained.append((list(read_records(pairs, Pair)), config))
        return train(pairs, out, config, *given)

    monkeypatch.setattr(cells, "train", spy)
    monkeypatch.setattr("maskdpo.train.run.record.draw_curves", lambda file, steps, evals: None)
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "kept"))
    plan, folder = SMALL, small_world
    most = folder.setting.most_pairs // 2
    found = execute(plan, folder, [Run(9903, f"dpo-{arm}", 1e-3) for arm in ARMS])
    base = str(folder.model(9903))
    configs = [config for _, config in trained]
    assert len(configs) == 3, "both have the first round in common"
    assert [config.reference for config in configs] == [None, None, base]
    assert configs[0].model == base and configs[1].model == configs[2].model != base
    asked = [{pair.prompt_id for pair in pairs} for pairs, _ in trained]
    parts = parts_of(list(read_prompts(folder.prompts(Pool(9903, size=1))).values()), 2, most, 9903)
    for ids, part in zip(asked, (parts[0], parts[1], parts[1]), strict=True):
        assert ids and ids <= {prompt.id for prompt in part}
    for figures, round_2 in zip(found, trained[1:], strict=True):
        assert figures["pairs"] == len(trained[0][0]) + len(round_2[0]) <= 2 * most
        assert figures["kl"] != 0 and {f"{name}_{n}" for name in MIX for n in (1, 2)} <= figures.keys()
    assert found[0]["kl"] != found[1]["kl"]
    assert not list((folder.root / "work").iterdir())
