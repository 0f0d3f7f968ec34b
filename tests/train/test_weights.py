"""Spans to token weights, against the definition applied character by character."""

from itertools import pairwise

import numpy as np
import pytest
from byte_oracle import byte_level_bytes, sentencepiece_bytes, token_sources
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from train_helpers import SPECIAL, TOKENIZERS, fast_tokenizer, spans
from weight_oracle import TABLES, expected_weights

from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Label, PairSentence, Side
from maskdpo.train.data.weights import METHODS, Rendered, desensitise, exact_offsets, token_weights

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
    return token_weights(Rendered(text, 0, len(text)), offsets, sentences, METHODS["mask-dpo"].row(side)).tolist()


@pytest.mark.parametrize("name", [*TOKENIZERS, "smollm2"])
def test_weights_follow_the_definition(name: str) -> None:
    tokenizer = load_tokenizer("smollm2") if name == "smollm2" else fast_tokenizer(name)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), TEXTS, TEXTS, TEXTS, st.sampled_from(["chosen", "rejected"]))
    def check(data: st.DataObject, before: str, response: str, after: str, side: Side) -> None:
        sentences = data.draw(labelled_spans(len(response)))
        start, text = len(before), before + response + after
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        rendered = Rendered(text, start, start + len(response))
        method = data.draw(st.sampled_from(sorted(TABLES)))
        soft, table = method == "soft", TABLES[method][side]
        expected = expected_weights(text, rendered.start, rendered.end, start, offsets, sentences, table, soft)
        row = METHODS[method].row(side)
        assert token_weights(rendered, offsets, sentences, row, by_confidence=soft).tolist() == expected

    check()


def test_the_methods_are_the_tables_of_the_design() -> None:
    assert {name: {side: METHODS[name].row(side) for side in SIDES} for name in METHODS} == TABLES
    assert [name for name in METHODS if METHODS[name].by_confidence] == ["soft"]


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
        row = METHODS["soft"].row("chosen")
        rendered = Rendered("a.b.c.d.e", 0, 9)
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
        weights = token_weights(Rendered(text, 2, 6), offsets, sentences, METHODS["dpo"].row(side))
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
    rendered = Rendered("Q:A.<e>", 2, 4)
    offsets = [(0, 1), (1, 3), (3, 5), (5, 7)]
    weights = token_weights(rendered, offsets, spans([("A.", RIGHT)]), METHODS["mask-dpo"].row("chosen"))
    assert weights.tolist() == [0, 0, 0, 0]
    assert weights.dtype == np.float32


def test_an_empty_response_gives_the_white_space_around_it_no_weight() -> None:
    assert token_weights(Rendered("  ", 1, 1), [(0, 2)], [], METHODS["dpo"].row("chosen")).tolist() == [0]


OWN_BYTES = {
    "byte-level": (byte_level_bytes, None),
    "byte-level-nfc": (byte_level_bytes, "NFC"),
    "byte-level-nfkc": (byte_level_bytes, "NFKC"),
    "llama3-like": (byte_level_bytes, None),
    "sentencepiece-like": (sentencepiece_bytes, None),
    "gemma-like": (sentencepiece_bytes, None),
    "unigram-bytes": (sentencepiece_bytes, None),
}


@pytest.mark.parametrize("name", OWN_BYTES)
def test_tokens_stand_for_the_characters_that_their_bytes_spell(name: str) -> None:
    """Against an oracle that knows the tokens' names only; white space has no say."""
    tokenizer, (to_bytes, form) = fast_tokenizer(name), OWN_BYTES[name]
    spelled = 0

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(TEXTS)
    @example("\ufb01\u0301")  # a ligature whose last letter an accent joins
    @example("\ufb03\u0327\u0301a\ufb01\u0301\u0300")
    def check(text: str) -> None:
        nonlocal spelled
        assume(not any(name in text for name in ("▁", "<0x", *SPECIAL)))
        encoding = tokenizer("." + text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, offsets = encoding.tokens(), encoding["offset_mapping"]
        blank = to_bytes(tokens[0]).startswith(b" ")  # of the tokenizer's own; it stands before the full stop
        expected = token_sources(tokens, " " * blank + "." + text, to_bytes, form)
        if expected is None:  # a character that the tokenizer does not know
            return
        spelled += 1
        exact = exact_offsets(tokens, offsets, "." + text, takes_apart=form == "NFKC")
        for found, (begin, end) in zip(exact, expected, strict=True):
            if begin > blank:
                assert solid("." + text, found) == solid("." + text, (begin - blank, end - blank))

    check()
    assert spelled > 50


def solid(text: str, span: tuple[int, int]) -> list[int]:
    return [i for i in range(*span) if not text[i].isspace()]


def test_bytes_that_do_not_spell_their_characters_are_an_error() -> None:
    """A normaliser has rewritten characters that the tokenizer does not know, and one range stands for all of them."""
    with pytest.raises(ValueError, match="do not spell"):
        exact_offsets(["a", "<0x66>", "<0x66>"], [(0, 1), (1, 3), (1, 3)], "a\ufb03\ufb04")
