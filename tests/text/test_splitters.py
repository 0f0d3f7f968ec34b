"""The splitters: what holds for every text, and what they make of particular ones."""

import json
import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskdpo.errors import UserError
from maskdpo.schemas.labels import Kind
from maskdpo.schemas.records import Span
from maskdpo.text.splitters import Splitter, get_splitter
from maskdpo.text.splitters.nltk_splitter import nltk_splitter
from maskdpo.text.splitters.score import score, sentence_ends

DATA = Path(__file__).parent / "data"
NAMES = ["markdown", "spacy", "nltk", "nltk with a sample"]
SAMPLE = ("Dr. Smith met Dr. Jones. Dr. Brown met Mr. Green. Mr. Green left.", "He came. She went. 他来了。")


@cache
def splitter(name: str) -> Splitter:
    return nltk_splitter(SAMPLE) if name == "nltk with a sample" else get_splitter(name)


def split(text: str, language: str = "en", name: str = "markdown") -> list[tuple[str, str]]:
    return [(span.kind.value, text[span.start : span.end]) for span in splitter(name).split(text, language)]


def prose(text: str, language: str = "en", name: str = "markdown") -> list[str]:
    return [sentence for _, sentence in split(text, language, name)]


# --- what holds for every text ------------------------------------------------------------------------------

# What may stand outside the spans, said once more and in other words than the splitters': on every line, or part of
# a line between `<br>`, white space and then one of these, whole.
_MARKER = r"(?:>|[-*+–•⁃●▪‣◦]|[(（]?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4}|[IVX]{2,5})(?:\.\)|[.)）、．])|\[[ xX]\])"
_IMAGE = r"(?:!\[[^\n]*\](?:\([^\n]*\)|\[[^\n]*\])|<img\b[^>\n]*>)"
_OUTSIDE = [
    re.compile(rf"(?:{_MARKER}\s*)*"),  # quote signs and list markers
    re.compile(rf"(?:{_MARKER}\s*)*#{{1,6}}(?:\s+#+)?"),  # a heading's hashes before it
    re.compile(r"#+"),  # and behind it
    re.compile(rf"(?:{_MARKER}\s*)*(?:```[^`]*|~~~.*|`{{3,}}[^`]*)"),  # a fence's line with its language
    re.compile(r"(?:>\s*)*([-*_=])(?:\s*\1){2,}"),  # a thematic break, a heading's underline
    re.compile(r"(?:>\s*)*[\s|:-]*\|[\s|:-]*"),  # a table's separator row
    re.compile(rf"(?:{_MARKER}\s*)*(?:\[\s*{_IMAGE}\s*\][(\[][^\n]*[)\]]|{_IMAGE}|\s)+"),  # images on their own
]


def outside_is_allowed(text: str) -> bool:
    lines = [line.strip() for part in re.split(r"(?i)<br\s*/?>", text) for line in part.splitlines()]
    return all(any(pattern.fullmatch(line) for pattern in _OUTSIDE) for line in lines if line)


def check_order(text: str, spans: Sequence[Span]) -> None:
    at = 0
    for span in spans:
        assert at <= span.start < span.end <= len(text), "ordered, disjoint, inside the text"
        at = span.end


def check(text: str, spans: Sequence[Span]) -> None:
    at = 0
    for span in spans:
        assert at <= span.start < span.end <= len(text), "ordered, disjoint, inside the text"
        sentence = text[span.start : span.end]
        assert sentence == sentence.strip() != "", "trimmed and not empty"
        assert outside_is_allowed(text[at : span.start]), f"lost: {text[at : span.start]!r}"
        at = span.end
    assert outside_is_allowed(text[at:]), f"lost: {text[at:]!r}"


_WORDS = """
The He Dr. U.S. e.g. said, is 3.14 No. 1. 2. 12) (a) a. and iPhone **bold.** *it* `x.y` [1] [x] etc. Yes!
What? “Quoted.” 'single.' (Aside.) https://a.b/c.d. ... … . . ? ! 他来了。 她走了！ “你好。”他说 ；、 1、
（1） – — - * + • # ## > | |--|--| --- === *** ``` ~~~ ```` 😀 👩‍👩‍👧 é ﷽ ß
![a](b.png) ![a [b](c) ![ [![a](b)](c) ![a][b] <img/> <br> <br/> <BR > `<br>` $$ \\[ \\] $x.$ \\(x.\\)
\\begin{a} \\end{a} ok.¹ U.S.[1] so.[^1] II. 《 》 （是。） **好。** 【1†a】 。【2】 &quot; (A, 2020) 他? نعم؟ है। no.
art. «a.» ¿qué? 3 m.
"""
words = st.sampled_from([*_WORDS.split(), "e\u0301", "\u200b", "\ufeff", "\u0301", "\x00", "\U0001f1e9\U0001f1ea"])
spaces = st.sampled_from(
    [" "] * 12 + ["\n"] * 5 + ["\n\n", "\r\n", "\r", "  \n", "\t", "\u0085", "\u2028", "\u2029", "\u00a0", "", "    "]
)
markdown_like = st.lists(st.tuples(spaces, words), max_size=40).map(lambda pairs: "".join(a + b for a, b in pairs))
anything = st.one_of(markdown_like, st.text(max_size=80), st.text(st.characters(), max_size=40))
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", NAMES)
@given(text=anything, language=st.sampled_from(["en", "zh"]))
@settings(quick, max_examples=150)
def test_spans_of_any_text(name: str, text: str, language: str) -> None:
    spans = splitter(name).split(text, language)
    check(text, spans)
    assert spans == splitter(name).split(text, language), "deterministic"


@given(text=anything)
@settings(quick, max_examples=1000)
def test_markdown_spans_of_any_text(text: str) -> None:
    check(text, splitter("markdown").split(text, "en"))


@pytest.mark.parametrize("text", ["\ud83d", "A \udc00 b. C \ud83d d.", "# \ud83d", "```\n\ud83d\n```"])
@pytest.mark.parametrize("name", NAMES)
def test_half_characters(name: str, text: str) -> None:
    check(text, splitter(name).split(text, "en"))


code = st.lists(words, min_size=1, max_size=12).map(" ".join).filter(lambda s: "```" not in s and "~~~" not in s)
codes = st.lists(code, min_size=1, max_size=5).map("\n".join)
paragraphs = st.sampled_from(
    ["He came. She went.", "- one\n- two", "# A title", "| a | b |\n|---|---|\n| 1 | 2 |", "他来了。"]
)
fences = st.sampled_from(["```", "~~~", "````", "```python", "~~~ sh"])


@pytest.mark.parametrize("name", NAMES)
@given(before=paragraphs, fence=fences, body=codes, after=st.none() | paragraphs)
@settings(quick, max_examples=60)
def test_no_cut_inside_a_fence(name: str, before: str, fence: str, body: str, after: str | None) -> None:
    closing = re.match(r"[`~]+", fence)
    assert closing
    text = f"{before}\n{fence}\n{body}\n" + (f"{closing[0]}\n{after}" if after is not None else "")
    found = splitter(name).split(text, "en")
    code_spans = [text[span.start : span.end] for span in found if span.kind is Kind.CODE]
    assert code_spans == [body.strip()]
    assert ("code" in [kind for kind, _ in split(before)]) is False


@given(sentence=st.sampled_from(["It is so.", "是的。", "Yes!", "- It is so.\n"]), times=st.integers(2, 6))
def test_repeated_sentences_have_different_spans(sentence: str, times: int) -> None:
    text = " ".join([sentence] * times)
    spans = splitter("markdown").split(text, "en")
    assert len({(span.start, span.end) for span in spans}) == len(spans) == times


@pytest.mark.parametrize("unit", ["Step 1. ", "...", "他。", "“a. ", "`a. ", "(x. ", "> ", "1. ", "- ", "[a](", "| "])
def test_a_model_that_repeats_itself_takes_no_long_time(unit: str) -> None:
    text = unit * (16_000 // len(unit))
    start = time.process_time()
    splitter("markdown").split(text, "en")
    assert time.process_time() - start < 2


@pytest.mark.slow
@pytest.mark.parametrize("around", [("", ""), ("Yes. ", " The end.")])
@pytest.mark.parametrize(
    "unit",
    [
        *"。…`*(\"'|#>_-=~[])}.!?：“”（）😀\n",
        "- ",
        "1. ",
        "> ",
        "# ",
        "``",
        "````",
        "“。",
        "。”",
        "。 ",
        "。😀",
        "😀\n",
        "• a ",
        "你。",
        "(A.) ",
        "他说“好。",
        "`a",
        "](",
        "![",
        "![a](b) ",
        "[![a](b)",
        "<br>",
        "$",
        "$$\n",
        "\\[\n",
        "\\(",
        ".[1]",
        "[1]",
        "。¹",
        "(A, 2020)",
        "《",
        "*a",
        "**",
        "。**a",
        "[1] A",
        "no. A",
    ],
)
def test_twenty_thousand_of_anything_take_no_long_time(unit: str, around: tuple[str, str]) -> None:
    text = around[0] + unit * 20_000 + around[1]
    start = time.process_time()
    spans = splitter("markdown").split(text, "en")
    assert time.process_time() - start < 2
    check_order(text, spans)


def test_a_very_long_paragraph_is_cut_as_its_parts_are() -> None:
    part = (
        "Dr. Smith came (he was late. Very late.) and left. “他来了。她走了。”他说。 It cost 3.14 etc. It was No. 5. "
    )
    ends = [span.end for span in splitter("markdown").split(part, "en")]
    spans = splitter("markdown").split(part * 500, "en")
    assert [span.end for span in spans] == [i * len(part) + end for i in range(500) for end in ends]
    long = "word " * 20_000 + "end. Next."
    assert len(splitter("markdown").split(long, "en")) == 2


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("See `a. B` c.", ["See `a. B` c."]),
        ("See `a. B`` c. D`", ["See `a. B`` c. D`"]),
        ("See ```a. B", ["See ```a.", "B"]),
        ("See `a. B` and `c. It is https://a.b/c.d. E", ["See `a. B` and `c.", "It is https://a.b/c.d.", "E"]),
    ],
)
def test_code_in_a_sentence(text: str, sentences: list[str]) -> None:
    assert prose(text) == sentences


# --- particular texts ---------------------------------------------------------------------------------------


def test_kinds() -> None:
    text = (
        "# Title #\n\nProse.\n\n- item\n\n> quote\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n"
        "```py\nx\n```\n\nSetext\n---\n***\n"
    )
    assert split(text) == [
        ("heading", "Title"),
        ("prose", "Prose."),
        ("list_item", "item"),
        ("prose", "quote"),
        ("table", "| a | b |"),
        ("table", "| 1 | 2 |"),
        ("code", "x"),
        ("heading", "Setext"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_the_same_for_all(name: str) -> None:
    text = "# A. B\n1.Abigail Adams (1797-1801)\r\n2.Dolley Madison\r\n\r\n~~~\nA. B\n\nC. D"
    assert split(text, name=name) == [
        ("heading", "A. B"),
        ("list_item", "Abigail Adams (1797-1801)"),
        ("list_item", "Dolley Madison"),
        ("code", "A. B\n\nC. D"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_chinese(name: str) -> None:
    assert prose("他来了。她走了！谁？我。", "zh", name) == ["他来了。", "她走了！", "谁？", "我。"]


@pytest.mark.parametrize(
    "text, sentences",
    [
        (
            "Line: 1.Abigail Adams (1797-1801) 2.Dolley Madison",
            ["Line:", "Abigail Adams (1797-1801)", "Dolley Madison"],
        ),
        (
            "For two reasons: 1) it is cheap, 2) it is good.",
            ["For two reasons: 1) it is cheap, 2) it is good."],
        ),
        ("Apollo 11. It flew in 1969. 2. Bundesliga", ["Apollo 11.", "It flew in 1969.", "2. Bundesliga"]),
        ("42.", ["42."]),
        ("3.14 is pi.", ["3.14 is pi."]),
        ("A. Lincoln won.", ["A. Lincoln won."]),
        ("(212) 555-1234 is the number.", ["(212) 555-1234 is the number."]),
        ("p. 5 says so.", ["p. 5 says so."]),
        ("ii. Second\niii. Third", ["Second", "Third"]),
        ("- [x] done", ["done"]),
        ("- 1. nested", ["nested"]),
        ("-", []),
        (">\n> a", ["a"]),
        ("> A quote\nand lazy text", ["A quote", "and lazy text"]),
        ("|x - y| is a distance", ["|x - y| is a distance"]),
        ("C#\n# C#\n#hashtag", ["C#", "C#", "#hashtag"]),
        ("**Stop.** Go. *Why?* [1] So.[2][3] End.", ["**Stop.**", "Go.", "*Why?* [1]", "So.[2][3]", "End."]),
        ("He came. 🎉 She went. 😀", ["He came.", "🎉 She went. 😀"]),
        ("iPhone sold. iPad sold.", ["iPhone sold.", "iPad sold."]),
        ("it rained. it poured.", ["it rained.", "it poured."]),
        ("It rained. (It often does.) We left.", ["It rained.", "(It often does.)", "We left."]),
        ("See https://a.b/c?d=1. E `f. G` h.", ["See https://a.b/c?d=1.", "E `f. G` h."]),
        ("He is 6'2\" tall. She is 5'10\".", ["He is 6'2\" tall.", "She is 5'10\"."]),
        ("One line\\\nanother  \nmore", ["One line\\", "another", "more"]),
        ("One line<br>Another<BR />- more `<br>`", ["One line", "Another", "more `<br>`"]),
        ("| a<br>b | c. D |", ["| a<br>b | c. D |"]),
        ("Rome.\n\n![A hill. A road!](x.png)\n\nIt is old.", ["Rome.", "It is old."]),
        ("[![a](b.svg)](c) ![d][e]\n<img src='f.g'>\nRome.", ["Rome."]),
        ("It is old. ![a](b.png)", ["It is old. ![a](b.png)"]),
        ("Use ![the key](k.png) to go. Stop!", ["Use ![the key](k.png) to go.", "Stop!"]),
        ("In the U.K. [2], taxes rose. So did rents.", ["In the U.K. [2], taxes rose.", "So did rents."]),
        (
            "Kim et al. [2011] show it!【3†a】 Why?² Go.[^4] End",
            ["Kim et al. [2011] show it!【3†a】", "Why?²", "Go.[^4]", "End"],
        ),
        ("It grew. (Lee et al., 2019) It fell.", ["It grew. (Lee et al., 2019)", "It fell."]),
        ("They said no. Mars was red. See no. 5.", ["They said no.", "Mars was red.", "See no. 5."]),
        ("It is 8 m. Ships pass. At 6 p.m. CET it closes.", ["It is 8 m.", "Ships pass.", "At 6 p.m. CET it closes."]),
        ("If $n! = 6$, stop. It is $5. It was $6.", ["If $n! = 6$, stop.", "It is $5.", "It was $6."]),
        ("So:\n\\[\na. B\n= c!\n\\]\nThen.", ["So:", "\\[\na. B\n= c!\n\\]", "Then."]),
        (
            '"Why?" Ann Lee asked. Is it no? **A:** No. Rain.',
            ['"Why?" Ann Lee asked.', "Is it no?", "**A:** No.", "Rain."],
        ),
        ("Part IV. The Return", ["Part IV. The Return"]),
        ("II. Wine\nI. Newton drank.", ["Wine", "I. Newton drank."]),
        ("He read *What? No!* twice. He left.", ["He read *What? No!* twice.", "He left."]),
        (
            "1. Lee, K. (2019). On tea. *Nature*, 5.\n2. Tea is old. It is hot.",
            ["Lee, K. (2019). On tea. *Nature*, 5.", "Tea is old.", "It is hot."],
        ),
        ("", []),
        (" \r\n\t\u2028", []),
        (
            "The score was written by John Williams Jr. (1998). It won an Oscar. It opened in May.",
            ["The score was written by John Williams Jr. (1998).", "It won an Oscar.", "It opened in May."],
        ),
        ("[1] J. Smith was a poet. He wrote odes.", ["[1] J. Smith was a poet.", "He wrote odes."]),
        ("[2] B. Lee and friends met. They ate.", ["[2] B. Lee and friends met.", "They ate."]),
    ],
)
def test_examples(text: str, sentences: list[str]) -> None:
    assert prose(text) == sentences


def test_wrapped_lines_are_joined_and_short_lines_are_not() -> None:
    wrapped = "The castle that stands on the hill above the old town of\nHeidelberg was destroyed twice. It\nis a ruin."
    assert prose(wrapped) == [wrapped[: wrapped.index(" It")], "It\nis a ruin."]
    assert prose("Born: 1815 in London\nDied: 1852 in London") == [
        "Born: 1815 in London",
        "Died: 1852 in London",
    ]


def test_a_fence_in_a_quote_ends_with_it() -> None:
    assert split("> ```\n> a. B\n\nOut. In.") == [("code", "a. B"), ("prose", "Out."), ("prose", "In.")]


def test_list_items_keep_their_paragraphs() -> None:
    assert split("1. One.\n\n   More.\n\nOut.") == [
        ("list_item", "One."),
        ("list_item", "More."),
        ("prose", "Out."),
    ]


# --- quality ------------------------------------------------------------------------------------------------


def golden_rules() -> list[tuple[str, str, list[str]]]:
    rules = json.loads((DATA / "golden_rules_en.json").read_text(encoding="utf-8"))["rules"]
    return [(" ".join(sentences), "en", sentences) for sentences in rules]


def answers(file: str) -> list[tuple[str, str, list[str]]]:
    rows = [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    return [(row["text"], row["language"], row["sentences"]) for row in rows]


def test_golden_rules() -> None:
    result = score(splitter("markdown"), golden_rules())
    assert result.texts == 48
    assert result.exact >= 47


@pytest.mark.parametrize(
    "file, texts, f1",
    [
        ("answers.jsonl", 192, 0.99),
        ("answers_held_out.jsonl", 40, 0.98),
        ("answers_today.jsonl", 79, 0.99),
        ("answers_today_held_out.jsonl", 22, 0.98),
    ],
)
def test_marked_answers(file: str, texts: int, f1: float) -> None:
    result = score(splitter("markdown"), answers(file))
    assert result.texts == texts
    assert result.f1 > f1


def test_score_counts() -> None:
    text = "A bad. C good. E fine."
    assert sentence_ends(text, ["A bad.", "C good. E fine."]) == {6, 22}
    result = score(splitter("markdown"), [(text, "en", ["A bad.", "C good. E fine."])])
    assert (result.found, result.expected, result.both, result.exact) == (3, 2, 2, 0)
    assert result.precision == pytest.approx(2 / 3)
    assert result.f1 == pytest.approx(0.8)


# --- the registry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "pysbd"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown splitter {name!r}; known: markdown, spacy, nltk, and package"):
        get_splitter(name)


@pytest.mark.parametrize("name", ["markdown:", "spacy:", "nltk:english"])
def test_a_colon_asks_for_an_object_that_can_be_imported(name: str) -> None:
    with pytest.raises(UserError, match=f"`splitter` {name}: "):
        get_splitter(name)


def test_a_missing_pipeline_is_answered_with_its_install_command() -> None:
    with pytest.raises(UserError, match="python -m spacy download xx_no_such_thing"):
        get_splitter("spacy:xx_no_such_thing")


def test_a_named_pipeline(tmp_path: Path) -> None:
    pipeline = spacy.blank("en")
    pipeline.to_disk(tmp_path / "blank")
    with pytest.raises(UserError, match="finds no sentences"):
        get_splitter(f"spacy:{tmp_path / 'blank'}")
    pipeline.add_pipe("sentencizer")
    pipeline.to_disk(tmp_path / "rules")
    named = get_splitter(f"spacy:{tmp_path / 'rules'}")
    assert named.name == f"spacy-2:{tmp_path / 'rules'}"
    assert named.split("He came. She went.", "en") == [Span(0, 8), Span(9, 18)]


def test_names_tell_models_apart() -> None:
    assert get_splitter("markdown").name == "markdown-2"
    assert nltk_splitter(SAMPLE).name == nltk_splitter(SAMPLE).name != nltk_splitter(SAMPLE[:1]).name
