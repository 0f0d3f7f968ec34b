"""The map of docs/evidence-map.md: for which pairs masks gained on plain DPO in a closed world, and whether pairs of a
certain mix are like those of one of its cells.

``evidence_map.json`` is written by ``python -m benchmarks.closed_world.map --ship`` from the lines of the cells.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from maskdpo.schemas import Record
from maskdpo.verdicts.mix import Mix

FILE = Path(__file__).with_name("evidence_map.json")
DOUBLING = 0.1
"""The distance between two mixes that differ only in that the answers of one have twice as many sentences. Two mixes
that differ only in one of the shares are as far apart as the shares: 0.2 and 0.5 have the distance 0.3."""
FAR = 0.2
"""The largest distance of a cell that says something about pairs."""
LIMITS = (
    "The map is of invented worlds with an exact judge and a model of 0.6M parameters. On a real model of 135M "
    "parameters, without close pairs, masks were level with DPO or below it (docs/evidence.md); larger models have not "
    "been tried."
)

Verdict = Literal["wins", "loses", "undecided"]
Method = Literal["mask-dpo", "strict"]


class Difference(Record):
    """A method less DPO in right / all sentences, near equal divergence from the reference."""

    mean: float
    """Over worlds."""
    half: Annotated[float, Field(ge=0)]
    """Half the width of its 95% interval."""


class Gain(Record):
    """What a method has over DPO."""

    sampled: Difference
    """Of answers that are sampled at temperature 1."""
    greedy: Difference
    """Of answers that are decoded greedily. The verdict does not look at them."""
    verdict: Verdict
    """By the rule of the protocol: two figures at two learning rates must agree."""


class EvidenceCell(Record):
    """A kind of pairs in the closed world. What its masks leave out is a share of tokens."""

    name: str
    worlds: Annotated[int, Field(ge=2)]
    mix: Mix
    gains: dict[Method, Gain]

    @model_validator(mode="after")
    def _has_a_place(self) -> Self:
        if _place(self.mix) is None:
            raise ValueError("mix: the shares and sentences_per_answer must be numbers")
        return self


CELLS = TypeAdapter(list[EvidenceCell])


def read_map() -> list[EvidenceCell]:
    """The cells that this version of maskdpo knows; none before they were computed."""
    return CELLS.validate_json(FILE.read_bytes())


def distance(one: Mix, other: Mix) -> float | None:
    """Euclidean, over the wrong share of chosen answers, the right share of rejected ones, and the sentences of an
    answer, whose every doubling counts ``DOUBLING``. None where a mix lacks one of them."""
    here, there = _place(one), _place(other)
    return math.dist(here, there) if here and there else None


def nearest_cell(mix: Mix, cells: Sequence[EvidenceCell]) -> EvidenceCell | None:
    """The cell whose pairs are most like those of ``mix``; None where all are farther than ``FAR``."""
    found = [(far, i) for i, cell in enumerate(cells) if (far := distance(mix, cell.mix)) is not None and far <= FAR]
    return cells[min(found)[1]] if found else None


def _place(mix: Mix) -> tuple[float, float, float] | None:
    wrong, right, sentences = mix.wrong_of_chosen, mix.right_of_rejected, mix.sentences_per_answer
    if wrong is None or right is None or not sentences:
        return None
    return wrong, right, DOUBLING * math.log2(sentences)
