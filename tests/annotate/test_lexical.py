"""The lexical judge: what it supports, what it does not guess, how often it is right on real sentences."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.judges.lexical import LexicalJudge
from maskdpo.errors import UserError
from maskdpo.schemas import Label, Prompt, Response, Span, Status
from maskdpo.text.claims.quantities import Quantity, agree
from maskdpo.text.claims.tokens import tokenize

RIGHT, CONTRADICTORY = Label.NO_HALLUCINATION, Label.CONTRADICTORY
UNVERIFIABLE, NO_FACT = Label.UNVERIFIABLE, Label.NO_FACT
LABELLED = Path(__file__).parent / "data" / "countries_labelled.jsonl"

FRANCE = [
    "The capital of France is Paris.",
    "France is in Europe.",
    "France is in Western Europe.",
    "The official language of France is French.",
    "The currency of France is the Euro.",
    "France borders Spain, Italy, Germany and Switzerland.",
    "France borders Germany to the east.",
    "France borders 8 countries.",
    "The population of France is about 67 million people (66,987,244 inhabitants).",
    "The area of France is between 520,000 and 575,000 square kilometers.",
    "France is not landlocked.",
    "The French Revolution began on July 14, 1789.",
]
DOUGLAS = (
    "William Orville Douglas was an American jurist who served as an associate justice of the Supreme Court "
    "from 1939 until his retirement in 1975. He was born in Maine on October 16, 1898. He married 4 times. "
    "The court heard 12.5% of the cases."
)


def verdicts(reference: str | list[str], topic: str | None, *sentences: str) -> list[Verdict]:
    spans, end = [], 0
    for sentence in sentences:
        spans.append(Span(end, end + len(sentence)))
        end += len(sentence) + 1
    task = Task(
        Prompt(id="p", prompt="?", reference=reference, topic=topic),
        Response(id="r", prompt_id="p", response=" ".join(sentences)),
        spans,
    )
    [(_, found)] = LexicalJudge().judge([task])
    return found


def about_france(sentence: str) -> Verdict:
    return verdicts(FRANCE, "France", sentence)[0]


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("The capital of France is Paris.", RIGHT),
        ("Paris is the capital of France.", RIGHT),
        ("France's capital is PARIS!", RIGHT),
        ("Its currency is the euro.", RIGHT),
        ("It borders Germany, Spain and Italy.", RIGHT),
        ("It is in Europe and its capital is Paris.", RIGHT),
        ("Its capital is Paris, it borders Spain.", RIGHT),
        ("It borders Germany to the east.", RIGHT),
        ("It has 67 million people and an area of 550,000 square kilometres.", RIGHT),
        ("The population is approximately 68 million.", RIGHT),
        ("The population is 66,987,244.", RIGHT),
        ("It is not landlocked.", RIGHT),
        ("It is in western Europe.", RIGHT),
        # a true name in the wrong place
        ("The capital of France is Germany.", CONTRADICTORY),
        ("It is in Spain.", CONTRADICTORY),
        ("Its official language is Paris.", CONTRADICTORY),
        ("Its currency is Spain.", CONTRADICTORY),
        # a false part makes the whole false
        ("Its capital is Paris, it is in Asia.", CONTRADICTORY),
        ("It borders Germany, Spain and Brazil.", CONTRADICTORY),
        ("Its capital is Paris and its currency is the Dollar.", CONTRADICTORY),
        # invented values
        ("Lyon is the capital of France.", CONTRADICTORY),
        ("Its currency is the dinar.", CONTRADICTORY),
        ("It borders France.", CONTRADICTORY),
        ("It borders Germany to the west.", CONTRADICTORY),
        ("It has a population of about 22 million.", CONTRADICTORY),
        ("It borders 7 countries.", CONTRADICTORY),
        ("The population is 670 million.", CONTRADICTORY),
        # the polarity differs
        ("The capital of France is not Paris.", CONTRADICTORY),
        ("It does not border Spain.", CONTRADICTORY),
        ("It is no longer in Europe.", CONTRADICTORY),
        ("It doesn't border Germany.", CONTRADICTORY),
        ("It isn't in Europe.", CONTRADICTORY),
        ("It is landlocked.", CONTRADICTORY),
        ("It has no official language.", CONTRADICTORY),
        # the reference does not speak of it
        ("Its president is Jane Doe.", UNVERIFIABLE),
        ("It won the World Cup in 2018.", UNVERIFIABLE),
        # nothing to check
        ("France is a beautiful country.", NO_FACT),
        ("What else would you like to know?", NO_FACT),
        ("However, it depends.", NO_FACT),
        ("It has a population of", NO_FACT),
        ("...", NO_FACT),
    ],
)
def test_country(sentence: str, label: Label) -> None:
    verdict = about_france(sentence)
    assert verdict.label is label, verdict


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("He was born on October 16, 1898.", RIGHT),
        ("He was born on 16 October 1898.", RIGHT),
        ("He was born on 1898-10-16.", RIGHT),
        ("Douglas was born in 1898.", RIGHT),
        ("Justice William O. Douglas served until 1975.", RIGHT),
        ("He married four times.", RIGHT),
        ("The court heard 12.5 percent of the cases.", RIGHT),
        ("He was born on October 17, 1898.", CONTRADICTORY),
        ("He was born in 1899.", CONTRADICTORY),
        ("He married five times.", CONTRADICTORY),
        ("The court heard 12.5 cases.", CONTRADICTORY),
        ("He was born in Oregon.", CONTRADICTORY),
    ],
)
def test_biography(sentence: str, label: Label) -> None:
    verdict = verdicts(DOUGLAS, "William O. Douglas", sentence)[0]
    assert verdict.label is label, verdict


def test_seasons() -> None:
    found = verdicts("The club won the league in 1904-05.", "club", "It won the league in 1905.", "It won in 1906.")
    assert [v.label for v in found] == [RIGHT, CONTRADICTORY]


def test_names_that_are_part_of_others() -> None:
    uganda = ["Uganda borders South Sudan, Kenya and Papua New Guinea.", "Uganda borders Guinea-Bissau."]
    labels = [
        v.label
        for v in verdicts(
            uganda,
            "Uganda",
            "It borders South Sudan.",
            "It borders Sudan.",
            "It borders Guinea.",
            "It borders Kenya.",
        )
    ]
    assert labels == [RIGHT, CONTRADICTORY, CONTRADICTORY, RIGHT]
    africa = verdicts(["South Africa is in Africa."], "South Africa", "It is in Africa.", "It is in Asia.")
    assert [v.label for v in africa] == [RIGHT, CONTRADICTORY]


def test_accents_and_quotes_are_folded() -> None:
    brazil = ["The capital of Brazil is Brasília.", "The capital of Chad is N'Djamena."]
    found = verdicts(brazil, "Brazil", "Its capital is Brasilia.", "The capital of Chad is N’Djamena.")
    assert [v.label for v in found] == [RIGHT, RIGHT]


def test_what_is_said_of_something_else_is_no_support() -> None:
    found = verdicts(
        ["The population of France is 67 million.", "Paris is in France."],
        "France",
        "Paris has a population of 67 million.",
    )
    assert found[0].label is not RIGHT


def test_evidence_is_verbatim_and_reasons_are_for_people() -> None:
    wrong = about_france("The capital of France is Lyon.")
    assert wrong.evidence == FRANCE[0]
    assert wrong.reason == "capital: the reference has Paris, not Lyon"
    right = about_france("It borders Italy and Spain.")
    assert right.evidence == FRANCE[5]
    assert right.reason == "borders: the reference has Italy, Spain"
    assert about_france("It is nice.").evidence is None


def test_chinese_numbers_and_dates_are_read_and_names_are_not_guessed() -> None:
    reference = "法国的人口约为6700万。法国大革命于1789年7月14日爆发。首都是巴黎。"
    right, wrong, unread = verdicts(
        reference, "法国", "法国的人口约为6700万。", "法国大革命于1790年7月14日爆发。", "首都是里昂。"
    )
    assert right.label is RIGHT
    assert wrong.label is CONTRADICTORY
    assert (unread.label, unread.status) == (None, Status.REFUSED)


@pytest.mark.parametrize("reference", [None, "", [], ["  "]])
def test_no_reference_is_an_error_not_a_label(reference: str | list[str] | None) -> None:
    task = Task(
        Prompt(id="p-7", prompt="?", reference=reference),
        Response(id="r", prompt_id="p-7", response="A."),
        [],
    )
    with pytest.raises(UserError, match=r"'p-7' has no reference"):
        list(LexicalJudge().judge([task]))


def test_the_cache_is_bounded_and_follows_the_reference() -> None:
    judge = LexicalJudge(cache_size=2)

    def ask(name: str, capital: str) -> Label | None:
        prompt = Prompt(id=name, prompt="?", reference=f"The capital is {capital}.")
        response = Response(id="r", prompt_id=name, response="The capital is Rome.")
        [(_, [verdict])] = judge.judge([Task(prompt, response, [Span(0, 20)])])
        return verdict.label

    assert [ask("a", "Rome"), ask("b", "Paris"), ask("c", "Rome"), ask("a", "Oslo")] == [
        RIGHT,
        CONTRADICTORY,
        RIGHT,
        CONTRADICTORY,
    ]
    assert len(judge._cache) == 2


@pytest.mark.parametrize(
    ("claimed", "known", "expected"),
    [
        ("67 million", "66,987,244", True),
        ("67 million", "68,100,000", False),
        ("about 70 million", "67,000,000", True),
        ("over 60 million", "67 million", True),
        ("over 70 million", "67 million", False),
        ("over 6 million", "67 million", False),
        ("between 60 and 70 million", "66,987,244", True),
        ("3.14", "3.14159", True),
        ("3.15", "3.14159", False),
        ("12", "13", False),
        ("120", "121", False),
        ("1,200", "1,204", True),
        ("50%", "50", False),
        ("50 percent", "50%", True),
        ("45th", "45th", True),
        ("45th", "45", False),
        ("1898", "October 16, 1898", True),
        ("October 1898", "1898-10-16", True),
        ("October 16, 1898", "1898", False),
        ("two million", "2,000,000", True),
        ("1.4亿", "140 million", True),
        ("1976", "1975", False),
        ("1985", "1980s", True),
        ("1985", "1990s", False),
        ("1980s", "May 3, 1985", True),
    ],
)
def test_quantities(claimed: str, known: str, expected: bool) -> None:
    def only(text: str) -> Quantity:
        [quantity] = [t.quantity for t in tokenize(text) if t.quantity]
        return quantity

    assert agree(only(claimed), only(known)) is expected


def test_real_sentences_labelled_by_hand() -> None:
    """Sentences of a 135M model about countries. Measured: 0.92, and no wrong one called right."""
    agreed = total = false_right = 0
    for line in LABELLED.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        texts = [sentence["text"] for sentence in record["sentences"]]
        for sentence, verdict in zip(
            record["sentences"], verdicts(record["reference"], record["topic"], *texts), strict=True
        ):
            label = Label.HALLUCINATION if verdict.label in (CONTRADICTORY, UNVERIFIABLE) else verdict.label
            agreed += label == sentence["label"]
            total += 1
            false_right += label is RIGHT and sentence["label"] == "hallucination"
    assert total >= 60
    assert agreed / total >= 0.88
    assert false_right <= 1


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120), st.text(max_size=120), st.text(max_size=20))
def test_any_text_gets_a_verdict(sentence: str, reference: str, topic: str) -> None:
    if sentence and reference.strip():
        verdict = verdicts(reference, topic or None, sentence)[0]
        assert (verdict.label is None) == (verdict.status is not Status.OK)


PIECES = st.sampled_from(
    [
        *(
            "The",
            "capital",
            "of",
            "France",
            "is",
            "Paris",
            "not",
            "It",
            "no",
            "north",
            "New",
            "York-Paris",
            "U.S.",
        ),
        *(
            "67",
            "million",
            "1898",
            "October",
            "16,",
            "%",
            "-",
            "to",
            "between",
            "and",
            ",",
            ".",
            "'n",
            "’s",
            "年",
        ),
        *("万", "1/2", "3.5.7", "½", "²", "٣", "-5", "1,2,3", "and/or", "10^30", "W.", "9" * 40, "1e5", "五"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14), st.lists(PIECES, min_size=1, max_size=20))
def test_mixed_up_pieces_get_a_verdict(sentence: list[str], reference: list[str]) -> None:
    text = " ".join(sentence) or "x"
    first = verdicts(" ".join(reference), "France", text)[0]
    assert first == verdicts(" ".join(reference), "France", text)[0]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FRANCE))
def test_the_reference_supports_itself(sentence: str) -> None:
    assert about_france(sentence).label in (RIGHT, NO_FACT)


def test_free_prose_is_noticed_and_plain_statements_are_not() -> None:
    def notes(reference: str) -> list[str]:
        judge = LexicalJudge()
        answer = Response(id="r", prompt_id="q", response="Paris is large.")
        list(judge.judge([Task(Prompt(id="q", prompt="?", reference=reference), answer, [Span(0, 15)])]))
        return judge.notes()

    plain = "Paris is the capital of France. Paris lies on the Seine. " * 3
    prose = (
        "Although it had been a settlement of fishermen long before the Romans came, Paris, which lies on both banks "
        "of the Seine, grew into the capital of the kingdom only under the Capetians. "
    )
    assert notes(plain) == LexicalJudge().notes() == []
    (note,) = notes(prose)
    assert "free prose (33 words per sentence)" in note
    assert notes(plain + prose) == []
