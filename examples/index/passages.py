"""Cuts a text into passages that are small enough to embed and large enough to answer: one per section, long sections in overlapping parts."""

import dataclasses
import pathlib

CORPUS = pathlib.Path(__file__).with_name("handbook.md")
# About 200 tokens of English: below the limit of small models, above the size at which a passage stops making sense.
WORDS, OVERLAP = 150, 30


@dataclasses.dataclass(frozen=True)
class Passage:
    title: str
    text: str


def cut(text: str, words: int = WORDS, overlap: int = OVERLAP) -> list[Passage]:
    """The passages of a Markdown text. Each begins with its section's title, which often holds the word that the section takes for granted."""
    passages = []
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        all_words = body.split()
        for start in range(0, max(len(all_words) - overlap, 1), words - overlap):
            part = " ".join(all_words[start : start + words])
            passages.append(Passage(title, f"{title}: {part}"))
    return passages


def corpus() -> list[Passage]:
    return cut(CORPUS.read_text())
