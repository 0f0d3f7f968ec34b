"""Where an answer that was cut off is torn, and where it happens to stop at the end of a sentence."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdpo.schemas import Kind, Span
from maskdpo.text.fragment import ends_like_a_sentence, fragment, set_apart
from maskdpo.text.splitters import get_splitter

MARKDOWN = get_splitter("markdown")
splitter = cache(get_splitter)


def torn(text: str) -> str | None:
    """What is torn off the end of a text, as the default splitter cuts it."""
    found = fragment(MARKDOWN.split(text, "en"), text)
    return None if found is None else text[found.start : found.end]


@pytest.mark.parametrize(
    "text",
    [
        "The tower opened in 1889.",
        "Is it open?",
        "Come in!",
        "It rose and rose…",
        "She wrote: “It was cold.”",
        "(The lake is deep.)",
        "**The lake is deep.**",
        "The lake is deep.[2][13]",
        "The lake is deep. [^4]",
        "The lake is deep.【7†guide】",
        "The lake is deep.¹²",
        "What a view! 🏔️",
        "They sell apples, pears, etc.",
        "湖水很深。",
        "他说：“湖水很深。”",
        "湖は深い。",
        "झील गहरी है।",
        "هل البحيرة عميقة؟",
        "Das Boot ist alt.",
        "Лодка старая.",
    ],
)
def test_what_ends_like_a_sentence(text: str) -> None:
    assert ends_like_a_sentence(text)
    assert torn(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "The tower opened in",
        "The lake is deep,",
        "These are its parts:",
        "She wrote, “It",
        "She wrote, “",
        "The lake (see the map)",
        "The lake 🏔️",
        "He was met by Dr.",
        "The ship was named J.",
        "Some rivers, e.g.",
        "3.",
        "**12.**",
        "湖水很",
        "झील गहरी",
    ],
)
def test_what_does_not(text: str) -> None:
    assert not ends_like_a_sentence(text)
    assert torn(text) == text


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("It is old. It was bui", "It was bui"),
        ("- It is old.\n- It was bui", "It was bui"),
        ("- Lyon\n- Mars", "Mars"),
        ("- Lyon\n- Marseille\n", None),
        ("It is old.\n\n- ", "-"),
        ("It is old.\n\n2", "2"),
        ("# Height\n\nIt is tall.\n\n## Mate", "Mate"),
        ("It is tall.\n\n## Materials\n", None),
        ("Roses are red\n", None),
        ("It is old.\n", None),
        ("| Town | Size |\n|---|---|\n| Lyon | large |", None),
        ("| Town | Size |\n|---|---|\n| Lyon |", "| Lyon |"),
        ("| Town | Size |\n|---|---|\n| Lyon | lar", "| Lyon | lar"),
        ("| Town | Size |\n|---|---|\n| Lyon | large\n", None),
        ("Run this:\n```python\nx = 1\ny =", "x = 1\ny ="),
        ("Run this:\n```python\nx = 1\n```", None),
        ("Run this:\n```python\nx = 1\n```\nIt is qui", "It is qui"),
        ("Run this:\n```python\nx = 1\n```\n\n```", "```"),
        ("", None),
        ("  \n", None),
    ],
)
def test_markdown(text: str, end: str | None) -> None:
    assert torn(text) == end


def test_only_an_answer_that_was_cut_off_has_a_fragment() -> None:
    text = "It is old. It was bui"
    spans = MARKDOWN.split(text, "en")
    assert set_apart(spans, text, "length") == [spans[0], Span(11, 21, Kind.FRAGMENT)]
    assert set_apart(spans, text, "stop") == set_apart(spans, text, None) == spans


@settings(deadline=None)  # the first text waits for spaCy
@given(st.text(alphabet="ab .!?|#-*`\n1。”🏔", max_size=40), st.sampled_from(["markdown", "spacy", "nltk"]))
def test_a_fragment_is_a_trimmed_span_at_the_end(text: str, name: str) -> None:
    spans = splitter(name).split(text, "en")
    apart = set_apart(spans, text, "length")
    assert apart == set_apart(apart, text, "length")
    for before, after in pairwise(apart):
        assert before.end <= after.start
    for span in apart:
        assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
    if apart and apart[-1].kind is Kind.FRAGMENT:
        assert apart[-1].end == len(text.rstrip())
        assert apart[:-1] == spans[: len(apart) - 1]
    else:
        assert apart == spans
