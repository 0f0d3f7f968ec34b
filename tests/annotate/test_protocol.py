"""Protocols: folders of templates, loaded with clear errors, and text that cannot break out of them."""

import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdpo.annotate.neutral import neutralise
from maskdpo.annotate.protocol import load_protocol
from maskdpo.errors import UserError
from maskdpo.schemas import Label

TEXTS = {
    "reference": "R1", "question": "Q1", "answer": "A1", "sentence": "S1", "sentences": [{"id": "7", "text": "S1"}],
    "replies": {},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the built-in protocol, to change."""
    target = tmp_path / "mine"
    shutil.copytree(str(files("maskdpo.annotate") / "protocols" / "single"), target)
    return target


@pytest.mark.parametrize("name", ["single", "joint", "staged"])
def test_the_built_in_protocols_show_every_text_once_and_explain_their_words_in_both_languages(name: str) -> None:
    protocol = load_protocol(name)
    labels = {meaning for turn in protocol.turns for meaning in turn.words.values()} - {"next"}
    assert labels == set(Label) - {Label.HALLUCINATION}
    for language in ("en", "zh"):
        system, user = protocol.opening(language, TEXTS)
        assert (system.role, user.role) == ("system", "user")
        assert [user.content.count(text) for text in ("R1", "Q1", "A1", "S1")] == [1, 1, 1, 1]
        places = [user.content.index(text) for text in ("R1", "Q1", "A1", "S1")]
        assert places == sorted(places)
        for number, turn in enumerate(protocol.turns):
            said = system.content + protocol.question(language, number, TEXTS).content
            expected = [word for word in turn.words if turn.reply == "word"]
            assert all(word in said for word in expected)


def test_yes_no_asks_about_a_fact_without_the_reference_and_about_support_with_it_in_both_languages() -> None:
    protocol = load_protocol("yes-no")
    assert protocol.labels == {Label.NO_FACT, Label.NO_HALLUCINATION, Label.HALLUCINATION}
    for language in ("en", "zh"):
        asked = [protocol.opening(language, TEXTS, turn)[-1].content for turn in range(2)]
        assert [[text.count(part) for part in ("R1", "S1")] for text in asked] == [[0, 1], [1, 1]]
        assert all("yes" in text and "no" in text for text in asked)


def test_a_folder_of_ones_own_is_used_and_named(folder: Path) -> None:
    (folder / "en" / "verdict.j2").write_text("Is {{ sentence }} so?")
    protocol = load_protocol(str(folder))
    assert protocol.name == "mine"
    assert protocol.opening("en", TEXTS)[1].content == "Is S1 so?"


def test_the_hash_changes_with_every_file_and_with_nothing_else(folder: Path) -> None:
    first = load_protocol(str(folder)).hash
    assert load_protocol(str(folder)).hash == first == load_protocol("single").hash
    (folder / "README.md").write_text("notes")
    assert load_protocol(str(folder)).hash == first
    seen = {first}
    for file in [*sorted(folder.rglob("*.j2")), folder / "protocol.yaml"]:
        file.write_text(file.read_text() + "\n# more\n")
        seen.add(load_protocol(str(folder)).hash)
    assert len(seen) == 6


def test_no_such_protocol() -> None:
    with pytest.raises(UserError, match=r"`protocol` nonsense: neither a built-in protocol .*single.* nor a folder"):
        load_protocol("nonsense")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("turns: 1", "protocol.yaml: not a valid protocol: turns: Input should be a valid list"),
        ("turns: []", "turns: List should have at least 1 item"),
        ("turns: [{template: verdict, words: [a, b]}]", "turns.0.words: Input should be a valid dict"),
        (
            "turns: [{template: verdict, words: {a: no_fact}}]",
            "turns.0: a turn with `reply: word` needs at least two words",
        ),
        ("turns: [{template: verdict, words: {yes: no_fact, no: no_fact}}]", "words: True is no text; put yes, no"),
        ("turns: [{template: verdict, words: {a: right, b: no_fact}}]", "turns.0.words.a"),
        ("turns: [{template: verdict, words: {a: next, b: no_fact}}]", "no turn follows the last one"),
        ("turns: [{template: nowhere, words: {a: no_fact, b: no_fact}}]", "nowhere.j2: this template is missing"),
        ("asks: answer\nturns: [{template: verdict, reply: text, words: {a: no_fact}}]", "must have exactly one turn"),
        (
            "raw: true\nturns: [{template: a, words: {a: next, b: no_fact}}, {template: b, words: {a: next, b: next}}]",
            "a protocol with `raw` must have exactly one turn",
        ),
        ("turns: [{template: verdict, words: {a: no_fact, b: no_fact}}]\nmore: 1", "more: Extra inputs"),
        ("turns: {", "protocol.yaml: not a valid protocol: while parsing"),
        ("", "protocol.yaml: not a valid protocol"),
    ],
)
def test_wrong_settings(folder: Path, settings: str, message: str) -> None:
    (folder / "protocol.yaml").write_text(settings)
    with pytest.raises(UserError) as error:
        load_protocol(str(folder))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_raw_protocol_with_a_system_text_that_nobody_would_read(folder: Path) -> None:
    settings = folder / "protocol.yaml"
    settings.write_text("raw: true\nturns: [{template: verdict, words: {a: no_fact, b: no_fact}}]")
    with pytest.raises(UserError, match=r"en/system\.j2: does not go with `raw`"):
        load_protocol(str(folder))
    for file in folder.rglob("system.j2"):
        file.unlink()
    assert load_protocol(str(folder)).settings.raw


def test_missing_and_broken_templates(folder: Path) -> None:
    (folder / "en" / "verdict.j2").write_text("{{ sentence ")
    with pytest.raises(UserError, match=r"en/verdict\.j2: not a valid template"):
        load_protocol(str(folder))
    (folder / "en" / "verdict.j2").unlink()
    with pytest.raises(UserError, match=r"en/verdict\.j2: this template is missing: protocol.yaml names it"):
        load_protocol(str(folder))
    shutil.rmtree(folder / "en")
    shutil.rmtree(folder / "zh")
    with pytest.raises(UserError, match="no templates"):
        load_protocol(str(folder))


def test_a_name_that_is_not_given_is_an_error_not_an_empty_text(folder: Path) -> None:
    (folder / "en" / "verdict.j2").write_text("{{ sentense }}")
    with pytest.raises(UserError, match=r"en/verdict\.j2.*sentense"):
        load_protocol(str(folder))


@pytest.mark.parametrize(
    "text",
    [
        "</sentence>",
        "< / SENTENCE >",
        "<answer>",
        "<reference",
        "<|im_start|>",
        "<|eot_id|>",
        "<question\n>",
        "|>",
        "<|",
        "<sentences>",
        "[INST]",
        "[/INST]",
        "<start_of_turn>",
        "</s>",
        "<<SYS>>",
    ],
)
def test_delimiters_and_control_tokens_lose_their_brackets_only(text: str) -> None:
    neutral = neutralise(f"a {text} b")
    assert text not in neutral
    assert neutral.replace("‹", "<").replace("›", ">").replace("［", "[") == f"a {text} b"


@pytest.mark.parametrize(
    "text", ["1 < 2 > 0", "<b>bold</b>", "a <- b", "x << y", "[INSTALL]", "<s1>", "List<String>", "a || b"]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert neutralise(text) == text


_PIECES = st.sampled_from(
    ["<", ">", "|", "/", " ", "\n", "sentence", "Answer", "im_start", "reference", "question", "x"]
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_nothing_that_is_judged_closes_a_delimiter_or_writes_a_control_token(text: str) -> None:
    neutral = neutralise(text)
    assert neutralise(neutral) == neutral
    assert len(neutral) == len(text)
    assert "<|" not in neutral
    assert "|>" not in neutral
    for name in ("reference", "question", "answer", "sentence"):
        assert f"</{name}>" not in neutral.lower()
        assert f"<{name}>" not in neutral.lower()


# What the ANAH repository's prompts are like: functions of this shape, indented, with white space at both ends.
ANAH_LIKE = '''
def fact_check_prompt(question, annotation, language):
    cn = f"""
    问题 {question}
    回答 {annotation}
    “<无事实>” “<有事实>”
    """
    en = f"""
    Question {question}
    Answer {annotation}
    “<No Facts>” “<Facts Present>”
    """
    return cn if language == "zh" else en

def reference_check_prompt(question, reference, annotation, language):
    return f"""
    {question}| {annotation} |{reference} \\n    """

def hallucination_check_prompt(question, reference, annotation, language):
    return f"""{question} / {annotation} / {reference}"""
'''


def test_the_anah_annotators_prompts_become_a_protocol_to_the_letter(tmp_path: Path) -> None:
    source = tmp_path / "anahv2_prompt.py"
    source.write_text(ANAH_LIKE)
    script = Path(__file__).parents[2] / "examples" / "anah_protocol.py"
    subprocess.run([sys.executable, str(script), str(source), str(tmp_path / "anah-v2")], check=True)
    protocol = load_protocol(str(tmp_path / "anah-v2"))
    prompts: dict[str, Any] = {}
    exec(ANAH_LIKE, prompts)
    texts = TEXTS | {"replies": {"reference": "P1", "fact": ""}}
    for language in ("en", "zh"):
        opening = protocol.opening(language, texts)
        assert [message.role for message in opening] == ["user"]
        assert opening[0].content == prompts["fact_check_prompt"]("Q1", "S1", language)
        second, third = (protocol.question(language, turn, texts).content for turn in (1, 2))
        assert second == prompts["reference_check_prompt"]("Q1", "R1", "S1", language)
        assert third == prompts["hallucination_check_prompt"]("Q1", "P1", "S1", language)


@pytest.mark.parametrize("size", [50_000])
def test_neutralising_takes_time_by_the_length_alone(size: int) -> None:
    started = time.process_time()
    for text in ("<" + " " * size, "< " * size, "</" * size, "<|" * size, "[" * size):
        neutralise(text)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if answer %}{{ sentense }}{% endif %}", "sentense"),
        ("{% if reference == 'z' %}{{ sentense }}{% endif %}", "'sentense' is not given; known: reference"),
        ("{% for s in sentences %}{{ s.txt }}{% endfor %}", "txt"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'x' %}", "not a valid template"),
        ("{{ replies.other }}", "other"),
    ],
)
def test_what_a_template_cannot_do_shows_when_it_is_loaded(folder: Path, template: str, message: str) -> None:
    (folder / "en" / "verdict.j2").write_text(template)
    with pytest.raises(UserError) as error:
        load_protocol(str(folder))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
