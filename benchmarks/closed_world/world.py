"""A world: entities, what is true of them, and the texts that a model learns of them from.

What a model can learn from some entities about others (and so what alignment can teach): which sources to follow,
which attributes to rather leave out, and how long to speak. What is true of an entity itself it knows from its texts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.closed_world import grammar
from benchmarks.closed_world.grammar import ATTRIBUTES, NO_FACT, SOURCES, VALUES, VERBS, Source, fact_sentence
from maskdpo.schemas import Prompt

RATES: dict[tuple[Source, bool], tuple[float, float]] = {
    ("reliable", False): (0.9, 0.08),
    ("unreliable", False): (0.4, 0.5),
    ("reliable", True): (0.3, 0.6),
    ("unreliable", True): (0.1, 0.8),
}
"""By source, and whether the fact is misled: how often texts state the truth, and how often the misconception."""

MISLED = {attribute: 0.7 if attribute in ATTRIBUTES[-2:] else 0.25 for attribute in ATTRIBUTES}
"""Share of the entities of whom even reliable sources mostly state a misconception; 0.4 over all attributes."""

GOSSIP, MAIN_SOURCE = 0.5, 0.7
"""Share of the entities of whom unreliable sources speak most, and how much of a text the main sources give."""

LENGTHS = range(3, 6)
NO_FACT_RATE = 0.08


@dataclass(frozen=True)
class Fact:
    truth: str
    misconception: str
    misled: bool


@dataclass(frozen=True)
class Entity:
    name: str
    facts: dict[str, Fact]
    gossip: bool


@dataclass(frozen=True)
class World:
    """Its first ``aligned`` entities may be aligned on, the others never."""

    seed: int
    entities: dict[str, Entity]
    aligned: int
    sizes: tuple[int, ...] = ()
    """Of how many entities its texts tell, in sentences that name them. (): of one, which only the question names."""

    @property
    def aligned_names(self) -> list[str]:
        return list(self.entities)[: self.aligned]

    @property
    def held_out_names(self) -> list[str]:
        return list(self.entities)[self.aligned :]

    def asked(self, topic: str) -> dict[str | None, Entity]:
        """The entities that a prompt of this topic asks about, by the name that a sentence must call them."""
        return {name if self.sizes else None: self.entities[name] for name in topic.split()}


def make_world(seed: int, entities: int, held_out: int, sizes: tuple[int, ...] = ()) -> World:
    """The same seed gives the same world."""
    rng = random.Random(seed)
    names = [word.capitalize() for word in grammar.invented_words(entities, 3, rng)]
    made = {name: Entity(name, {a: _fact(a, rng) for a in ATTRIBUTES}, rng.random() < GOSSIP) for name in names}
    return World(seed, made, entities - held_out, sizes)


def _fact(attribute: str, rng: random.Random) -> Fact:
    truth, misconception = rng.sample(VALUES[attribute], 2)
    return Fact(truth, misconception, rng.random() < MISLED[attribute])


def write_text(entity: Entity, focus: str | None, rng: random.Random, name: str | None = None) -> str:
    """A text such as the model learns from: no attribute twice, the one that was asked for first. With ``name`` the
    sentences call the entity so."""
    attributes = rng.sample(ATTRIBUTES, rng.choice(LENGTHS))
    if focus is not None:
        attributes = [focus, *(a for a in attributes if a != focus)][: len(attributes)]
    sentences = []
    for attribute in attributes:
        sentences.append(_statement(entity, attribute, rng, name))
        if rng.random() < NO_FACT_RATE:
            sentences.append(rng.choice(NO_FACT))
    return " ".join(sentences)


def _statement(entity: Entity, attribute: str, rng: random.Random, name: str | None) -> str:
    main = rng.random() < MAIN_SOURCE
    source: Source = "unreliable" if main == entity.gossip else "reliable"
    fact = entity.facts[attribute]
    truth, misconception = RATES[source, fact.misled]
    draw = rng.random()
    if draw < truth:
        value = fact.truth
    elif draw < truth + misconception:
        value = fact.misconception
    else:
        value = rng.choice([v for v in VALUES[attribute] if v not in (fact.truth, fact.misconception)])
    return fact_sentence(rng.choice(SOURCES[source]), rng.choice(VERBS), attribute, value, name)


def question(name: str, focus: str | None) -> str:
    return f"About {name} :" if focus is None else f"About the {focus} of {name} :"


def make_prompts(world: World, names: list[str], each: int, rng: random.Random) -> list[Prompt]:
    """``each`` different questions about every name, drawn from the general one and those about an attribute."""
    kinds: list[str | None] = [None, *ATTRIBUTES]
    return [make_prompt(world, name, focus) for name in names for focus in rng.sample(kinds, each)]


def question_about(names: Sequence[str]) -> str:
    """``of`` stands before every name, as in the answers: what follows it is what a small model must learn to copy."""
    return " ".join(["About", *(f"of {name}" for name in names), ":"])


def write_texts(entities: Sequence[Entity], rng: random.Random) -> str:
    """A text about several entities, one after the other."""
    return " ".join(write_text(entity, None, rng, entity.name) for entity in entities)


def groups(names: Sequence[str], size: int, rng: random.Random) -> list[tuple[str, ...]]:
    """All names in groups of ``size``, drawn by lot; a rest that makes no group is left out."""
    order = rng.sample(names, len(names))
    return [tuple(order[i : i + size]) for i in range(0, len(order) - size + 1, size)]


def make_group_prompts(world: World, names: Sequence[str], size: int, rounds: int, rng: random.Random) -> list[Prompt]:
    """Questions about ``size`` entities at once; every entity is in ``rounds`` of them."""
    asked = {group: None for _ in range(rounds) for group in groups(names, size, rng)}
    return [_group_prompt(world, group) for group in asked]


def _group_prompt(world: World, names: tuple[str, ...]) -> Prompt:
    facts = [(name, attribute, fact) for name in names for attribute, fact in world.entities[name].facts.items()]
    reference = [f"The {attribute} of {name} is {fact.truth} ." for name, attribute, fact in facts]
    topic = " ".join(names)
    return Prompt(id="-".join(names), prompt=question_about(names), reference=reference, topic=topic, language="en")


def make_prompt(world: World, name: str, focus: str | None) -> Prompt:
    reference = [f"The {attribute} is {fact.truth} ." for attribute, fact in world.entities[name].facts.items()]
    return Prompt(
        id=f"{name}-{focus or 'all'}", prompt=question(name, focus), reference=reference, topic=name, language="en"
    )
