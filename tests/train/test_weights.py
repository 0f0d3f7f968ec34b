"""Spans to token weights, against the definition applied character by character."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_helpers import TOKENIZERS, fast_tokenizer, spans
from weight_oracle import TABLES, expected_weights

from maskdpo.models import load_tokenizer
from maskdpo.schemas import Label, PairSentence, Side
from maskdpo.train.weights import BY_CONFIDENCE, METHODS, Rendered, desensitise, token_weights

RIGHT, WRONG, NO_FACT = Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.NO_FACT
LABELS: list[Label | None] = [*Label, None]

PIECES = st.sampled_from(
    [
        *(
            "Paris",
            " is",
            " the",
            "capital",
            ".",
            "!",
            ",",
            " ",
            "  ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            "巴黎",
            "。",
            "首都",
            "é",
        ),
        *(
            "e\u0301",
            "👩\u200d👩\u200d👧",
            "😀",
            "🇫🇷",
            "\u200b",
            "\u200d",
            "\ufeff",
            "\u3000",
            "\u00a0",
            "ﬁ",
            "ﷺ",
            "İ",
            "ß",
        ),
        *("가", "\u0301", "\x1c", "𝔘", "1.", " 42", "- ", "`x`", "<|im_end|>", "</s>", "<0x0A>", "▁", "Ġ"),
    ]
)
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=14).map("".join)


@st.composite
def labelled_spans(draw: st.DrawFn, length: int) -> list[PairSentence]:
    """Any ordered spans without overlap, with and without gaps between them."""
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    found = []
    for start, end in pairwise(cuts):
        if start < end and draw(st.sampled_from([True, True, False])):
            confidence = draw(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]))  # exact in float32
            label = draw(st.sampled_from(LABELS))
            found.append(PairSentence(start=start, end=end, label=label, confidence=confidence))
    return found


def weights_of(
    text: str, offsets: list[tuple[int, int]], sentences: list[PairSentence], side: Side = "chosen"
) -> list[float]:
    """Of a response that is the whole text."""
    return token_weights(Rendered(text, 0, len(text), 0), offsets, sentences, METHODS["mask-dpo"][side]).tolist()


@pytest.mark.parametrize("name", [*TOKENIZERS, "smollm2"])
def test_weights_follow_the_definition(name: str) -> None:
    tokenizer = load_tokenizer("smollm2") if name == "smollm2" else fast_tokenizer(name)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), TEXTS, TEXTS, TEXTS, st.sampled_from(["chosen", "rejected"]), st.booleans())
    def check(data: st.DataObject, before: str, response: str, after: str, side: Side, trimmed: bool) -> None:
        sentences = data.draw(labelled_spans(len(response)))
        kept = response.strip() if trimmed else response
        start, text = len(before), before + kept + after
        origin = start - (len(response) - len(response.lstrip()) if trimmed and kept else 0)
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        rendered = Rendered(text, start, start + len(kept), origin)
        method = data.draw(st.sampled_from(sorted(TABLES)))
        soft, table = method == "soft", TABLES[method][side]
        expected = expected_weights(text, rendered.start, rendered.end, origin, offsets, sentences, table, soft)
        row = METHODS[method][side]
        assert token_weights(rendered, offsets, sentences, row, by_confidence=soft).tolist() == expected

    check()


def test_the_methods_are_the_tables_of_the_design() -> None:
    assert METHODS == TABLES
    assert frozenset({"soft"}) == BY_CONFIDENCE


def test_soft_weights_are_the_confidence_where_kept() -> None:
    """Half sure: 0.5; no confidence: 1; left out by its label: 0 however sure; text outside every sentence: 1."""
    sentences = [
        PairSentence(start=0, end=2, label=RIGHT, confidence=0.5),
        PairSentence(start=2, end=4, label=RIGHT),
        PairSentence(start=4, end=6, label=WRONG, confidence=0.75),
        PairSentence(start=6, end=8, label=NO_FACT, confidence=0.25),
    ]
    offsets = [(0, 1), (1, 3), (3, 4), (4, 6), (6, 8), (8, 9)]
    for soft, expected in ((True, [0.5, 0.5, 1, 0, 0.25, 1]), (False, [1, 1, 1, 0, 1, 1])):
        row = METHODS["soft"]["chosen"]
        rendered = Rendered("a.b.c.d.e", 0, 9, 0)
        assert token_weights(rendered, offsets, sentences, row, by_confidence=soft).tolist() == expected


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [1, 0, 1, 0.5]), (0.5, [1, 0, 0.5, 0.25]), (0.0, [1, 0, 0, 0])])
def test_desensitised_weights_shrink_behind_the_length_of_the_shorter_answer(
    alpha: float, expected: list[float]
) -> None:
    weights = desensitise(np.array([1, 0, 1, 0.5], dtype=np.float32), 2, alpha)
    assert (weights.tolist(), weights.dtype) == (expected, np.float32)


def test_dpo_gives_every_answer_token_weight_one() -> None:
    text, offsets = "Q A b.", [(0, 1), (1, 3), (3, 5), (5, 6)]
    sentences = spans([("A b.", None)])
    for side in ("chosen", "rejected"):
        weights = token_weights(Rendered(text, 2, 6, 2), offsets, sentences, METHODS["dpo"][side])
        assert weights.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(("side", "expected"), [("chosen", [1, 1, 1, 0, 0, 0]), ("rejected", [0, 0, 0, 1, 1, 1])])
def test_right_trains_in_chosen_and_wrong_in_rejected(side: Side, expected: list[float]) -> None:
    sentences = spans([("It is.", RIGHT), (" It was.", WRONG)])
    offsets = [(0, 2), (2, 5), (5, 6), (6, 9), (9, 13), (13, 14)]
    assert weights_of("It is. It was.", offsets, sentences, side) == expected


def test_a_token_in_two_sentences_takes_the_smaller_weight() -> None:
    assert weights_of("A.B.", [(0, 1), (1, 3), (3, 4)], spans([("A.", RIGHT), ("B.", WRONG)])) == [1, 0, 0]


def test_a_space_in_front_does_not_bind_a_token_to_the_sentence_before() -> None:
    assert weights_of("A. B", [(0, 2), (2, 4)], spans([("A. ", WRONG), ("B", RIGHT)])) == [0, 1]


def test_white_space_takes_the_minimum_of_its_neighbours() -> None:
    sentences = spans([("A", RIGHT), ("\n\n", NO_FACT), ("B", RIGHT), ("\n", NO_FACT), ("C", WRONG)])
    offsets = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    assert weights_of("A\n\nB\nC", offsets, sentences) == [1, 1, 1, 1, 0, 0]


def test_tokens_of_one_character_share_its_weight() -> None:
    assert weights_of("A😀", [(0, 1), (1, 2), (1, 2), (1, 2)], spans([("A", WRONG), ("😀", RIGHT)])) == [0, 1, 1, 1]


def test_a_token_without_characters_has_no_weight() -> None:
    assert weights_of("AB", [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)], spans([("AB", RIGHT)])) == [0, 1, 0, 1, 0]


def test_text_outside_every_sentence_counts_as_no_fact() -> None:
    sentence = [PairSentence(start=2, end=3, label=WRONG)]
    offsets = [(0, 2), (2, 3), (3, 4)]
    assert weights_of("- A.", offsets, sentence) == [1, 0, 1]
    assert weights_of("- A.", offsets, sentence, "rejected") == [0, 1, 0]


def test_a_token_that_reaches_out_of_the_response_has_no_weight() -> None:
    rendered = Rendered("Q:A.<e>", 2, 4, 2)
    offsets = [(0, 1), (1, 3), (3, 5), (5, 7)]
    weights = token_weights(rendered, offsets, spans([("A.", RIGHT)]), METHODS["mask-dpo"]["chosen"])
    assert weights.tolist() == [0, 0, 0, 0]
    assert weights.dtype == np.float32


def test_an_empty_response_gives_the_white_space_around_it_no_weight() -> None:
    assert token_weights(Rendered("  ", 1, 1, 1), [(0, 2)], [], METHODS["dpo"]["chosen"]).tolist() == [0]


def test_a_sentence_in_the_trimmed_beginning_labels_nothing() -> None:
    sentences = spans([(" ", RIGHT), (" ", NO_FACT), ("A.", WRONG)])
    weights = token_weights(Rendered("A.", 0, 2, -2), [(0, 1), (1, 2)], sentences[:1], METHODS["mask-dpo"]["rejected"])
    assert weights.tolist() == [0, 0]
    weights = token_weights(Rendered("A.", 0, 2, -2), [(0, 1), (1, 2)], sentences, METHODS["mask-dpo"]["rejected"])
    assert weights.tolist() == [1, 1]
    unjudged = [PairSentence(start=0, end=1, label=None)]
    weights = token_weights(Rendered("A.", 0, 2, -2), [(0, 1), (1, 2)], unjudged, METHODS["mask-dpo"]["chosen"])
    assert weights.tolist() == [1, 1]
