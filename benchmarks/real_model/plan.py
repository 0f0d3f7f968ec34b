"""The parts of the experiment, and which alignments come next. docs/evidence-real-model.md has the protocol.

Lines, rates on development topics and a grid that widens are those of the map of the closed world. What is a cell there
is a part here, and what is a world there is a seed: with it answers are sampled anew, and a model is trained anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.closed_world.map_plan import BASE, Development, MapPlan, Results, Run, develop
from benchmarks.closed_world.methods import METHODS, NEEDS_NOISE, Method
from benchmarks.closed_world.plan import Choice

OF_THE_GRAMMAR = frozenset({"wrong-values", "values", "content", "matched"})
"""Methods that read the sentences of the closed world, and can do nothing with others."""
VARIANTS = tuple(name for name in METHODS if name not in OF_THE_GRAMMAR | NEEDS_NOISE)


@dataclass(frozen=True)
class Setting:
    """The size of everything. It never changes within a folder of results."""

    development: tuple[int, int]
    """Topics to train on, and others to evaluate on, while rates are chosen."""
    final: tuple[int, int]
    """The same for the figures that are reported. No topic is in two of the four sets. Topics to train on are as many
    as in development: a rate is best for a number of steps."""
    samples: int = 8
    """Answers a topic to build pairs from."""
    eval_samples: int = 4
    epochs: int = 2
    batch_size: int = 8
    max_tokens: int = 80
    temperature: float = 0.8
    split_seed: int = 17
    model: str = "smollm2"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of sampling and training; weights stay float32 in training."""
    pairs: str = ""
    """How pairs are made (``PAIRS``); "": as the method has it, which is best with worst."""


@dataclass(frozen=True)
class Plan:
    name: str
    setting: Setting
    rates: MapPlan
    """Methods, of which the first one is what the others are compared with, seeds, and the grid. Without development
    seeds all methods have the first rate of the grid."""
    equal: tuple[str, ...] = ()
    """Methods that are also run at the rate that gives them the divergence of the first one."""
    by_hand: bool = False
    """People label sentences before any figure is shown."""

    @property
    def methods(self) -> tuple[str, ...]:
        return self.rates.methods

    @property
    def at_equal(self) -> tuple[str, ...]:
        """The methods with a rate of equal divergence. That of the first one is nearly always its best rate."""
        return (self.methods[0], *self.equal) if self.equal else ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.rates.fresh

    def stage(self, seed: int) -> str:
        return "development" if seed in self.rates.development else "final"

    def with_variant(self, method: str) -> "Plan":
        """The same with one method more.

        Raises:
            ValueError: the method makes pairs in a way of its own, and so does the plan.
        """
        if method in self.methods:
            return self
        if self.setting.pairs and METHODS[method].pairs != Method.pairs:
            raise ValueError(f"{method} makes pairs in a way of its own, and {self.name} is about {self.setting.pairs}")
        rates = replace(self.rates, methods=(*self.methods, method))
        return replace(self, rates=rates, equal=(*self.equal, method) if self.equal else ())


COUNTRIES = Plan(
    "countries",
    Setting(development=(24, 16), final=(24, 18), eval_samples=3),
    MapPlan(
        {},
        (),
        methods=("dpo", "bon-sft", "mask-dpo", "strict"),
        development=(7001,),
        fresh=(1, 2, 3, 4, 5),
        grid=(1e-5, 2e-5, 4e-5),
        widen=1,
    ),
    equal=("mask-dpo", "strict"),
)
COUNTRIES_CLOSE = Plan(
    "countries-close",
    replace(COUNTRIES.setting, pairs="small-margin"),
    replace(COUNTRIES.rates, methods=("dpo", "mask-dpo", "strict"), development=(), grid=(1e-5,)),
)
ARTICLES = Plan(
    "articles",
    Setting(
        development=(0, 0),
        final=(160, 80),
        samples=4,
        eval_samples=2,
        epochs=1,
        batch_size=16,
        max_tokens=96,
        dtype="bfloat16",
    ),
    MapPlan({}, (), methods=("dpo", "mask-dpo", "strict"), development=(), fresh=(1, 2, 3), grid=(1e-5,)),
    by_hand=True,
)
PLANS = {plan.name: plan for plan in (COUNTRIES, COUNTRIES_CLOSE, ARTICLES)}


def quick(plan: Plan) -> Plan:
    """A few topics, two methods, one seed: whether it works, and nothing about methods."""
    few = (12, 2)
    setting = replace(
        plan.setting,
        development=few if plan.rates.development else (0, 0),
        final=few,
        samples=4,
        eval_samples=2,
        epochs=1,
        max_tokens=60,
    )
    rates = replace(plan.rates, methods=("dpo", "strict"), fresh=(1,), grid=(1e-5,), widen=0)
    return replace(plan, setting=setting, rates=rates, equal=("strict",) if plan.equal else ())


def developed(plan: Plan, results: Results) -> Development:
    if plan.rates.development:
        return develop(plan.rates, results)
    given = plan.rates.grid[0]
    return Development([], {}, dict.fromkeys(plan.methods, Choice(given, given)))


def final_runs(plan: Plan, choices: Mapping[str, Choice]) -> list[Run]:
    """Seed by seed: the model before, every method at its best rate, and some at that of equal divergence."""
    runs: dict[Run, None] = {}
    for seed in plan.seeds:
        runs[Run(seed, BASE)] = None
        for method in plan.methods:
            runs[Run(seed, method, choices[method].best_lr)] = None
        for method in plan.at_equal:
            runs[Run(seed, method, choices[method].equal_lr)] = None
    return list(runs)


def next_runs(plan: Plan, results: Results) -> list[Run]:
    """What can be run now: development first."""
    development = developed(plan, results)
    if development.missing:
        return development.missing
    return [run for run in final_runs(plan, development.choices) if run not in results]


ANSWER_SECONDS, PAIR_SECONDS, START_SECONDS = 0.45, 1.6, 55.0
"""Of two cores with AVX2, which have no bfloat16, in float32: an answer of up to 80 tokens; a pair of two such answers,
in one epoch; what every alignment takes beside them, to load, check and write models and to measure the divergence."""
SENTENCES = 5
"""An answer has about so many."""


def forecast(plan: Plan, judge_seconds: float) -> str:
    """What the whole part takes on two idle cores, whatever is there already.

    Args:
        judge_seconds: for each sentence.
    """
    setting, length = plan.setting, plan.setting.max_tokens / 80
    answer = ANSWER_SECONDS * length + SENTENCES * judge_seconds
    pair = PAIR_SECONDS * length * setting.epochs

    def seconds(topics: tuple[int, int], alignments: int) -> tuple[float, float, float]:
        """Answers to pair, one evaluation, all alignments."""
        train, test = topics
        evaluation = test * (setting.eval_samples + 1) * answer
        return train * setting.samples * answer, evaluation, alignments * (train * pair + evaluation + START_SECONDS)

    each = len(plan.methods) + len(plan.equal)
    final = seconds(setting.final, each)
    total, choosing = len(plan.seeds) * sum(final), ""
    if plan.rates.development:
        tried = len(plan.methods) * (len(plan.rates.grid) + plan.rates.widen)
        total += sum(seconds(setting.development, tried))
        choosing = f"at most {tried} alignments to choose rates, then "
    hours, alignment = total / 3600, final[2] / each
    return (
        f"{plan.name}: {choosing}{each} alignments for each of {len(plan.seeds)} seeds; "
        f"answers to pair take {final[0]:.0f} s a seed, an alignment with its evaluation {alignment:.0f} s: about "
        f"{hours:.1f} hours on two idle cores"
    )
