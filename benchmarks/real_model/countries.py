"""The countries of the demo as topics: prompts with what is true of the country as the reference."""

import random
import sys
from itertools import accumulate
from pathlib import Path

from benchmarks.real_model.plan import Setting
from maskdpo.schemas import Prompt

EXAMPLES = Path(__file__).parents[2] / "examples"


def topics(setting: Setting) -> list[list[Prompt]]:
    """Four disjoint sets: development and final, each to train on and to evaluate on."""
    sys.path.append(str(EXAMPLES))  # its scripts import each other
    import countries
    from country_facts import cities, neighbours

    sizes = (*setting.development, *setting.final)
    chosen, _ = countries.choose(sum(sizes), 0, setting.split_seed)
    random.Random(setting.split_seed).shuffle(chosen)
    borders, towns = neighbours(), cities()
    ends = list(accumulate(sizes))
    return [
        [countries.make_prompt(iso, borders, towns) for iso in sorted(chosen[end - size : end])]
        for end, size in zip(ends, sizes, strict=True)
    ]
