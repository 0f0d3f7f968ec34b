"""Finds the spans of sentences in the answer that they were cut from."""

from collections.abc import Sequence


def align(text: str, sentences: Sequence[str]) -> list[tuple[int, int] | None]:
    """The spans of the sentences in the text, in their order. Only white space may differ.

    Splitters strip sentences, or change a line break into a space. So both sides are compared without white space, and
    a span reaches from the first to the last character of its sentence. A sentence of white space only has no span.

    Raises:
        ValueError: a sentence is not in the text, or it may be at several places.
    """
    positions = [i for i, character in enumerate(text) if not character.isspace()]
    solid = "".join(text[i] for i in positions)
    spans: list[tuple[int, int] | None] = []
    done = 0
    for i, sentence in enumerate(sentences):
        wanted = "".join(sentence.split())
        if not wanted:
            spans.append(None)
            continue
        at = solid.find(wanted, done)
        if at < 0:
            raise ValueError(f"sentence {i}, {_short(sentence)}, does not follow in the answer")
        if at > done and solid.find(wanted, at + 1) >= 0:
            raise ValueError(f"sentence {i}, {_short(sentence)}, may be one of several places in the answer")
        done = at + len(wanted)
        spans.append((positions[at], positions[done - 1] + 1))
    return spans


def _short(sentence: str) -> str:
    return repr(sentence if len(sentence) <= 40 else sentence[:37] + "...")
