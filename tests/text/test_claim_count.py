"""Names, numbers and dates of answers, counted without a reference."""

import pytest

from maskdpo.text.claims.count import count_claims


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["What a lovely question!", "There is much to say."], (0, 0, 0)),
        (["Paris is large."], (0, 0, 0)),  # a first word has a capital letter whether it is a name or not
        (["The river Seine flows through Paris."], (2, 0, 0)),
        (["He met Marie Curie.", "Later he met Marie Curie again."], (1, 0, 0)),
        (["It has 2.1 million people, two rivers and 5% of the land."], (0, 3, 0)),
        (["It was founded on 3 May 1998 and closed in 2005."], (0, 0, 2)),
        (["他生于1998年5月3日。", "他有3个孩子，在IBM工作。"], (1, 1, 1)),
        ([], (0, 0, 0)),
    ],
)
def test_by_hand(sentences: list[str], expected: tuple[int, int, int]) -> None:
    assert count_claims(sentences) == expected


def test_filler_adds_nothing() -> None:
    fact = ["Marie Curie was born in Warsaw in 1867."]
    filler = ["However, it is important to note that this is a matter of debate.", "I hope this helps!"]
    assert count_claims(fact + filler) == count_claims(fact) == (2, 0, 1)
