"""``python -m benchmarks.real_model countries`` (or another part): SmolLM2 aligned by several methods, seed by seed.

Every alignment is a line of ``results/PART/PART.jsonl``, so repeating the command goes on where it stopped, on another
day or machine too: what the next lines need (answers, pairs) is made again where the cache has it not.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.closed_world.map_plan import Results
from benchmarks.closed_world.run import refuse_other_setting
from benchmarks.real_model import articles, corrected, countries
from benchmarks.real_model.align import Lab, execute
from benchmarks.real_model.plan import PLANS, VARIANTS, Plan, developed, forecast, next_runs, quick
from benchmarks.real_model.tables import report
from maskdpo.annotate.deciding import read_rule
from maskdpo.annotate.settings import JudgeSettings
from maskdpo.io.lock import sole_writer
from maskdpo.schemas import Prompt

RESULTS = Path(__file__).with_name("results")
LEXICAL = "lexical"
JUDGE_SECONDS = 0.18
"""Of two cores, for a sentence that a judge of 22M parameters is asked about with one passage."""


def main(arguments: Sequence[str] | None = None) -> None:
    args = _arguments(arguments)
    plan = quick(PLANS[args.part]) if args.quick else PLANS[args.part]
    try:
        plan = plan.with_variant(args.variant) if args.variant else plan
    except ValueError as error:
        raise SystemExit(f"--variant {error}") from None
    cache = args.cache or Path("runs") / ("real_model_quick" if args.quick else "real_model") / args.part
    folder = args.results or (cache / "results" if args.quick else RESULTS / args.part)
    results = Results(folder, plan.name)
    lab = _lab(plan, cache, args.judge)
    if not args.tables:
        refuse_other_setting(folder, asdict(plan.setting) | {"judge": lab.judge.info.model_dump(exclude={"model"})})
        print(forecast(plan, JUDGE_SECONDS if args.judge != LEXICAL else 0.0), flush=True)
        with sole_writer(folder):
            lab.write_topics(_topics(plan, args.corpus))
            run_all(lab, results)
    print(_shown(lab, results, folder, args.plots or cache))


def run_all(lab: Lab, results: Results) -> None:
    while runs := next_runs(lab.plan, results):
        for done, run in enumerate(runs):
            figures = execute(lab, run)
            results.add(run, figures)
            left = f"{figures['seconds']:.0f} s, {len(runs) - done - 1} to go before the next step"
            print(f"{lab.plan.name} seed {run.world} {run.method} {run.lr:g}: {left}", flush=True)


def _shown(lab: Lab, results: Results, folder: Path, plots: Path) -> str:
    """The tables. Those of articles wait for the labels by hand, so that nobody labels with a result in mind."""
    if not lab.plan.by_hand:
        return report(lab.plan, results, plots)
    if developed(lab.plan, results).missing or next_runs(lab.plan, results):
        return f"{lab.plan.name}: not complete yet"
    if left := corrected.unlabelled(lab, results, folder):
        return corrected.ask(lab, folder, left)
    return f"{report(lab.plan, results, plots)}\n{corrected.corrected(lab, results, folder)}\n"


def _lab(plan: Plan, cache: Path, judge: str) -> Lab:
    if judge == LEXICAL:
        return Lab(cache, plan, JudgeSettings(judge=LEXICAL).make_judge())
    calibration = Path(judge) / "calibration.json"
    rule = read_rule(calibration if calibration.exists() else None, None)
    return Lab(cache, plan, JudgeSettings(judge="classifier", model=judge).make_judge(), rule)


def _topics(plan: Plan, corpus: Path | None) -> list[list[Prompt]]:
    if corpus is None:  # the arguments were checked
        return countries.topics(plan.setting)
    return articles.topics(plan.setting, corpus)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.real_model", description=__doc__)
    parser.add_argument("part", choices=PLANS)
    parser.add_argument("--quick", action="store_true", help="a few topics and two methods, to see that it works")
    parser.add_argument("--tables", action="store_true", help="only tables and figure, of the lines that are there")
    parser.add_argument("--variant", choices=VARIANTS, metavar="NAME", help=f"one method more: {', '.join(VARIANTS)}")
    parser.add_argument("--corpus", type=Path, help="articles: the documents, as JSONL")
    parser.add_argument("--judge", help="lexical, or the folder of a judge that train-judge has made")
    parser.add_argument("--results", type=Path, help="folder of the lines (default: results/PART beside this module)")
    parser.add_argument("--plots", type=Path, help="folder for the figure (default: the cache)")
    parser.add_argument("--cache", type=Path, help="folder for topics and answers (default: runs/real_model/PART)")
    args = parser.parse_args(given)
    if args.part != "articles" and args.corpus:
        parser.error("--corpus goes with articles: countries have their references in examples/countries.py")
    if args.part == "articles" and not args.tables and not (args.corpus and (args.judge or args.quick)):
        parser.error("articles need --corpus, and --judge: the lexical one is little better than chance in free prose")
    args.judge = args.judge or LEXICAL
    return args


if __name__ == "__main__":
    main()
