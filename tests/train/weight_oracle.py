"""Token weights read off the definition, one character at a time: slow, plain, and sharing nothing with the package."""

from collections.abc import Sequence

from maskdpo.schemas import Label, PairSentence

TABLE: dict[str, dict[Label | None, float]] = {
    "chosen": {
        Label.NO_HALLUCINATION: 1,
        Label.NO_FACT: 1,
        Label.CONTRADICTORY: 0,
        Label.UNVERIFIABLE: 0,
        Label.HALLUCINATION: 0,
        None: 0,
    },
    "rejected": {
        Label.NO_HALLUCINATION: 0,
        Label.NO_FACT: 0,
        Label.CONTRADICTORY: 1,
        Label.UNVERIFIABLE: 1,
        Label.HALLUCINATION: 1,
        None: 0,
    },
}


def expected_weights(
    text: str,
    start: int,
    end: int,
    origin: int,
    offsets: Sequence[tuple[int, int]],
    sentences: Sequence[PairSentence],
    table: dict[Label | None, float],
) -> list[float]:
    """The weight of every token of a text whose response is ``text[start:end]``, with spans counted from ``origin``."""

    def weight_of(character: int) -> float:
        if not start <= character < end:
            return 0.0
        for sentence in sentences:
            if sentence.start <= character - origin < sentence.end:
                return table[sentence.label]
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
