"""Long references: what is kept of them, that it fits, and that the facts in question are in it."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from maskdpo.text.passages import GAP, PIECE_BYTES, Passages


def _bpe() -> Callable[[str], int]:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    corpus = ["The river Thames flows through London, the river Seine through Paris. 你好，世界。 [...]"] * 3
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet))
    return lambda text: len(raw.encode(text).ids)


def _words(text: str) -> int:
    return len(text.split()) + 1


COUNTERS = {"characters": len, "bytes": lambda text: len(text.encode()), "words": _words, "bpe": _bpe()}
counters = st.sampled_from(sorted(COUNTERS))

# No "[": the tests recognise gaps by it.
anything = st.text(st.characters(codec="utf-8", exclude_characters="["), max_size=80)
blocks = st.sampled_from(
    [
        "\r\n",
        "\n",
        "\n\n",
        " \t",
        "   \n",
        "A river. ",
        "It flows, Dr. Li says! ",
        "塞纳河流经巴黎。",
        "😀👩‍👩‍👧",
        "词" * 90,
    ]
)
passage_texts = st.lists(anything | blocks | blocks.map(lambda block: block * 30), max_size=8).map("".join)
references = st.lists(passage_texts, max_size=4)
statements = st.lists(anything | blocks, max_size=3)


def parts_in_order(result: str, reference: str) -> bool:
    """Whether the result is made of stretches of the reference, in their order."""
    position = 0
    for part in re.split(rf"{re.escape(GAP)}|\n\n", result):
        found = reference.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return True


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(references, statements, st.integers(0, 700), counters)
@example(["😀"], [], 3, "bytes")  # not even one character fits
@example(["a. " * 900], ["a"], 1, "words")
@example(["\r\n\r\n"], ["x"], 1, "characters")
def test_a_cut_fits_and_is_made_of_the_reference(
    passages: list[str], sentences: list[str], budget: int, name: str
) -> None:
    count = COUNTERS[name]
    reference = Passages(passages)
    assert reference.text == "\n\n".join(passages)
    cut = reference.cut(sentences, budget, count)
    assert reference.cut(sentences, budget, count) == Passages(passages).cut(sentences, budget, count) == cut
    if count(reference.text) <= budget:
        assert cut is not None
        assert cut.text == reference.text
        assert cut.complete
    elif cut is not None:
        assert count(cut.text) <= budget
        assert cut.text.strip() == cut.text != ""
        assert parts_in_order(cut.text, reference.text)
    else:
        starts = [passage.strip()[0] for passage in passages if passage.strip()]
        assert not starts or budget < 5  # a character has at most 4 bytes, and a word counts 2


@settings(deadline=None, max_examples=200)
@given(references, st.integers(1, 2000))
def test_pieces_are_small_and_lose_nothing(passages: list[str], budget: int) -> None:
    """Seen from outside: each character counts, so a cut to all but one loses less than a piece and its marks."""
    reference = Passages(passages)
    size = len(reference.text)
    cut = reference.cut([], size - 1, len)
    if any(passage.strip() for passage in passages) and size > 1:
        assert cut is not None
        kept = len(re.sub(r"\s", "", cut.text.replace(GAP, "")))
        pieces = len(reference.text.encode()) // (PIECE_BYTES // 2) + len(passages) + 1
        assert kept >= len(re.sub(r"\s", "", reference.text)) - PIECE_BYTES - len(GAP) * pieces


def _article(facts: dict[int, str], paragraph: str, paragraphs: int = 120) -> str:
    return "\n".join(f"{paragraph.format(i)}{facts.get(i, '')}" for i in range(paragraphs))


ENGLISH = (
    "Section {0} of the survey describes farm number {0}, whose owners grew wheat and kept sheep on the hills. "
    "Their children went to school in the village, and the roads were often closed by snow in the winter. "
    "A mill stood by the stream until it burned down; nobody knows who built it or when exactly that was. "
    "Most of the land belonged to the church, and the rents were paid in grain until the end of the century. "
)
CHINESE = (
    "调查的第{0}节描述了第{0}号农场，农场主在山上种植小麦并饲养绵羊，孩子们在村里上学。"
    "冬天道路经常被大雪封闭，溪边的磨坊后来被烧毁，没有人知道它是谁建造的，也没有人知道它的年代。"
    "大部分土地属于教会，地租一直用粮食支付，直到世纪末才改用货币支付。"
)
CURIE, BRIDGE = "Marie Curie discovered polonium in 1898.", "The old bridge is 1,250 metres long."
CURIE_ZH, BRIDGE_ZH = "居里夫人于1898年发现了钋元素。", "那座古桥全长1250米。"
ARTICLE = _article({60: CURIE, 90: BRIDGE}, ENGLISH)
ARTICLE_ZH = _article({60: CURIE_ZH, 90: BRIDGE_ZH}, CHINESE)


@pytest.mark.parametrize(
    ("article", "sentence", "fact"),
    [
        (ARTICLE, "In 1898, Curie discovered polonium.", CURIE),
        (ARTICLE, "Polonium was a discovery of Marie Curie in 1911.", CURIE),  # contradicts it
        (ARTICLE, "MARIE CURIE's discoveries", CURIE),
        (ARTICLE, "It is 1250 meters long.", BRIDGE),
        (ARTICLE, "1250?", BRIDGE),
        (ARTICLE, "They cross the stream on bridges.", BRIDGE),
        (ARTICLE_ZH, "1898年，居里夫人发现了钋。", CURIE_ZH),
        (ARTICLE_ZH, "钋元素是居里夫人在1911年发现的。", CURIE_ZH),
        (ARTICLE_ZH, "这座桥的长度是１２５０米。", BRIDGE_ZH),
        (ARTICLE_ZH, "１２５０？", BRIDGE_ZH),
        (ARTICLE_ZH, "古桥有三百年历史。", BRIDGE_ZH),
    ],
)
def test_the_fact_is_found_in_the_middle(article: str, sentence: str, fact: str) -> None:
    cut = Passages([article]).cut([sentence], 700, COUNTERS["bytes"])
    assert cut is not None
    assert fact in cut.text
    assert cut.complete
    assert len(cut.text.encode()) > 100  # with what is around it


@pytest.mark.parametrize(
    ("facts", "paragraph", "asked"),
    [
        ({20: CURIE, 21: CURIE, 22: CURIE, 90: BRIDGE}, ENGLISH, ("Curie discovered polonium.", "The bridge is long.")),
        ({20: CURIE_ZH, 21: CURIE_ZH, 22: CURIE_ZH, 90: BRIDGE_ZH}, CHINESE, ("居里夫人发现了钋。", "古桥全长多少？")),
    ],
)
def test_every_sentence_is_served_before_one_is_served_twice(
    facts: dict[int, str], paragraph: str, asked: tuple[str, str]
) -> None:
    reference = Passages([_article(facts, paragraph)])
    for sentences in (asked, asked[::-1]):
        cut = reference.cut(sentences, 1300, COUNTERS["bytes"])
        assert cut is not None
        assert cut.complete
        assert facts[20] in cut.text
        assert facts[90] in cut.text
        assert cut.text.index(facts[20]) < cut.text.index(facts[90])
        assert cut.text.count(facts[20]) < 3
        assert GAP in cut.text
        small = reference.cut(sentences, 700, COUNTERS["bytes"])
        assert small is not None
        assert not small.complete  # there is room for one of them
        assert facts[20 if sentences is asked else 90] in small.text


def test_chinese_words_count_for_more_than_their_characters() -> None:
    cut = Passages(["海上，海上。", "上海下雨了。", "山上无雨。", "大海无风。"]).cut(["上海"], 8, len)
    assert cut is not None
    assert cut.text == "上海下雨了。"


def test_pieces_that_bear_on_nothing_come_from_the_beginning() -> None:
    lead = "Kirkdale is a parish. "
    for sentences in ([], ["😀"], ["Quantum chromodynamics."], ["The"]):
        cut = Passages([lead + ARTICLE]).cut(sentences, 2000, len)
        assert cut is not None
        assert cut.text == (lead + ARTICLE)[: len(cut.text)]
        assert len(cut.text) > 1200
    cut = Passages([lead + "\n\n" + ARTICLE]).cut(["Polonium!"], 2000, len)
    assert cut is not None
    assert cut.text.startswith(lead.strip())
    assert CURIE in cut.text


def test_separate_passages_stay_separate_and_neighbours_together() -> None:
    facts = [
        "The capital of France is Paris.",
        "The currency is the euro.",
        "France borders Spain.",
        "Lyon is in France.",
    ]
    reference = Passages(facts)
    cut = reference.cut(["Which currency?", "Where is Lyon?"], 50, len)
    assert cut is not None
    assert cut.text == "The currency is the euro.\n\nLyon is in France."
    assert cut.complete
    paragraph = "One sheep. Two sheep? \r\n" * 60
    whole = Passages([paragraph]).cut([], 1300, len)
    assert whole is not None
    assert whole.text in paragraph  # neighbours are joined by what was between them, CRLF and all
    assert "\r\n" in whole.text
    assert len(whole.text) > PIECE_BYTES


def test_a_piece_that_is_too_long_is_shortened_where_it_hurts_least() -> None:
    text = "Rivers flow to the sea. Lakes do not, said Dr. Li in 1990. Canals are older than railways."
    reference = Passages([text, "Wolves howl."])
    assert [
        getattr(reference.cut(["Lakes?"], budget, len), "text", None) for budget in (60, 58, 57, 23, 22, 6, 5, 1)
    ] == [
        text[:58],
        text[:58],
        text[:23],
        text[:23],
        "Rivers flow to the",
        "Rivers",
        "River",
        "R",
    ]
    cut = reference.cut(["Lakes?"], 60, len)
    assert cut is not None
    assert not cut.complete
    assert reference.cut(["Lakes?"], 0, len) is None
    chinese = Passages(["河流入海。湖泊则不然。"]).cut(["湖泊"], 5, len)
    assert chinese is not None
    assert chinese.text == "河流入海。"


def test_the_tokenizer_is_called_rarely() -> None:
    """Once for the whole, once for a piece and a gap, once for a result."""
    calls: Counter[str] = Counter()

    def count(text: str) -> int:
        calls[text] += 1
        return _words(text)

    reference = Passages([ARTICLE])
    first = reference.cut([CURIE, BRIDGE], 600, count)
    assert first is not None
    assert _words(first.text) > 500
    assert calls.total() < 30  # of about 90 pieces and more; some were tried in vain
    before = calls.total()
    assert reference.cut([CURIE, BRIDGE], 600, count) == first
    assert calls.total() == before + 1
    reference.cut(["snow"], 5000, count)
    assert max(times for text, times in calls.items() if text != first.text) == 1
    fresh = Passages([ARTICLE])
    fresh.cut([CURIE, BRIDGE], 600, len)
    assert fresh.cut([CURIE, BRIDGE], 600, _words) == first  # not with the counts of another tokenizer


def test_a_tokenizer_that_does_not_add_up() -> None:
    """Joined text has more tokens than its parts: the least important pieces go."""

    def count(text: str) -> int:
        return len(text) + 100 * text.count(GAP) if text != GAP else 1

    reference = Passages([_article({20: CURIE, 90: BRIDGE}, ENGLISH)])
    cut = reference.cut([CURIE, BRIDGE], 2500, count)
    assert cut is not None
    assert count(cut.text) <= 2500
    assert cut.complete
    assert len(cut.text) > 1000


def test_nothing_is_printed_and_no_thread_started() -> None:
    program = (
        "import sys, threading\n"
        "from maskdpo.text.passages import Passages\n"
        "assert 'bm25s' not in sys.modules\n"
        "cut = Passages(['A river. ' * 500]).cut(['Rivers'], 700, len)\n"
        "assert cut and threading.active_count() == 1\n"
        "assert 'bm25s' in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
