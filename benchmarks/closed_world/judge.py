"""The exact judge, a plug-in for ``annotate``: it knows the world. Noise can be put on its labels, at a known rate."""

import random
from collections.abc import Iterable, Iterator, Mapping

from benchmarks.closed_world.grammar import NO_FACT, parse, sentence_spans
from benchmarks.closed_world.world import Entity, World
from maskdpo.annotate.judge import Task, Verdict
from maskdpo.schemas import RIGHT, WRONG, JudgeInfo, Label, Span

MALFORMED, REPEATED, MISCONCEPTION, OTHER = "malformed", "repeated", "misconception", "other value"


class SentenceSplitter:
    """Sentences end with a full stop that stands alone."""

    name = "closed-world"

    def split(self, text: str, language: str) -> list[Span]:
        return [Span(start, end) for start, end in sentence_spans(text)]


class ExactJudge:
    """Right where the value is true. Repeated and malformed sentences are wrong too: both would game a count of facts.

    Args:
        world: whose facts are true.
        noise: mean probability that a label right or wrong is turned round. It differs between sentences, evenly
            over the widest range about the mean below 1/2, and the confidence says how sure the label is.
        seed: of the noise.
    """

    def __init__(self, world: World, noise: float = 0.0, seed: int = 0) -> None:
        self._world = world
        self._noise = noise
        self._seed = seed
        self.info = JudgeInfo(name="closed-world", protocol=f"world {world.seed}, noise {noise}", version="1")

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task in tasks:
            sentences = [task.sentence(i) for i in range(len(task.spans))]
            verdicts = exact_verdicts(self._world.asked(task.prompt.topic_or_id), sentences)
            yield task, self._disturbed(verdicts, task.response.id) if self._noise else verdicts

    def _disturbed(self, verdicts: list[Verdict], response_id: str) -> list[Verdict]:
        rng = random.Random(f"{self._seed} {response_id}")
        half_width = min(self._noise, 0.5 - self._noise)
        return [_turned(v, self._noise + half_width * rng.uniform(-1, 1), rng) for v in verdicts]


def exact_verdicts(asked: Mapping[str | None, Entity], sentences: list[str]) -> list[Verdict]:
    """One verdict a sentence of an answer about the entities ``asked`` for, by the name that a sentence calls them;
    a statement about anything else is malformed."""
    said: set[tuple[str | None, str]] = set()
    verdicts = []
    for sentence in sentences:
        claim = parse(sentence)
        if claim is None or claim.name not in asked:
            known = sentence in NO_FACT
            verdicts.append(Verdict(Label.NO_FACT) if known else Verdict(Label.HALLUCINATION, reason=MALFORMED))
        elif (claim.name, claim.attribute) in said:
            verdicts.append(Verdict(Label.UNVERIFIABLE, reason=REPEATED))
        else:
            said.add((claim.name, claim.attribute))
            fact = asked[claim.name].facts[claim.attribute]
            evidence = f"The {claim.attribute} is {fact.truth} ."
            if claim.value == fact.truth:
                verdicts.append(Verdict(Label.NO_HALLUCINATION, evidence=evidence))
            else:
                reason = MISCONCEPTION if claim.value == fact.misconception else OTHER
                verdicts.append(Verdict(Label.CONTRADICTORY, evidence=evidence, reason=reason))
    return verdicts


def _turned(verdict: Verdict, chance: float, rng: random.Random) -> Verdict:
    """The verdict with its confidence; with probability ``chance`` its label is turned round."""
    turn = rng.random() < chance
    if verdict.label in RIGHT:
        return Verdict(Label.CONTRADICTORY if turn else Label.NO_HALLUCINATION, confidence=1 - chance)
    if verdict.label in WRONG:
        return Verdict(Label.NO_HALLUCINATION if turn else verdict.label, confidence=1 - chance)
    return verdict
