"""Token weights read off the definition, one character at a time: slow, plain, and sharing nothing with the package."""

from collections.abc import Sequence

from maskdpo.schemas import Label, PairSentence

R, N, C, U, H = (
    Label.NO_HALLUCINATION,
    Label.NO_FACT,
    Label.CONTRADICTORY,
    Label.UNVERIFIABLE,
    Label.HALLUCINATION,
)
EVERYTHING: dict[Label | None, float] = {R: 1, N: 1, C: 1, U: 1, H: 1, None: 1}
TRUE: dict[Label | None, float] = {R: 1, N: 1, C: 0, U: 0, H: 0, None: 0}
FALSE: dict[Label | None, float] = {R: 0, N: 0, C: 1, U: 1, H: 1, None: 0}

TABLES: dict[str, dict[str, dict[Label | None, float]]] = {
    "mask-dpo": {"chosen": TRUE, "rejected": FALSE},
    "dpo": {"chosen": EVERYTHING, "rejected": EVERYTHING},
    "chosen-only": {"chosen": TRUE, "rejected": EVERYTHING},
    "rejected-only": {"chosen": EVERYTHING, "rejected": FALSE},
    "strict": {"chosen": TRUE | {N: 0}, "rejected": FALSE | {N: 1}},
    "soft": {"chosen": TRUE, "rejected": FALSE},
}
TABLE = TABLES["mask-dpo"]


def counts(sentence: PairSentence, table: dict[Label | None, float], soft: bool) -> float:
    """What a sentence counts."""
    if not soft or sentence.confidence is None:
        return table[sentence.label]
    return table[sentence.label] * sentence.confidence


def expected_weights(
    text: str,
    start: int,
    end: int,
    origin: int,
    offsets: Sequence[tuple[int, int]],
    sentences: Sequence[PairSentence],
    table: dict[Label | None, float],
    soft: bool = False,
) -> list[float]:
    """The weight of every token of a text whose response is ``text[start:end]``, with spans counted from ``origin``."""

    def weight_of(character: int) -> float:
        if not start <= character < end:
            return 0.0
        for sentence in sentences:
            if sentence.start <= character - origin < sentence.end:
                return counts(sentence, table, soft)
        return table[Label.NO_FACT]

    def solid(token: int) -> list[int]:
        return [c for c in range(*offsets[token]) if not text[c].isspace()]

    def touches(token: int) -> bool:
        return any(start <= c < end for c in range(*offsets[token]))

    def of_token(token: int) -> float:
        if not touches(token):
            return 0.0
        if solid(token):
            return min(weight_of(c) for c in solid(token))
        before = [j for j in range(token) if touches(j) and solid(j)][-1:]
        after = [j for j in range(token + 1, len(offsets)) if touches(j) and solid(j)][:1]
        return min((of_token(j) for j in before + after), default=table[Label.NO_FACT])

    return [of_token(token) for token in range(len(offsets))]
