"""Enron1 of Enron-Spam: +1 is spam, −1 is ham; no official split."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import simplemma

from poisoning.datasets.archives import read_json, read_tar
from poisoning.datasets.content import Content
from poisoning.datasets.text import bag_of_words
from poisoning.errors import DataError

WORD = re.compile("[a-z]{2,}")


def parse(folder: Path) -> Content:
    """Counts of the 4,822 words of the authors' vocabulary; ham first, both in order of name.

    Koh et al. 2021 report d = 5,116, but the vocabulary in their code release has 4,822 words.
    """
    vocabulary = read_vocabulary(folder / "enron_vocab.json")
    mails = read_tar(folder / "enron1.tar.gz", re.compile("enron1/(ham|spam)/[^/]+").fullmatch)
    words = frozenset(vocabulary)
    X = bag_of_words((tokenise(mail, words) for mail in mails.values()), vocabulary)
    y = np.array([1.0 if "/spam/" in name else -1.0 for name in mails])
    return Content("counts", X, y, vocabulary=vocabulary)


def read_vocabulary(path: Path) -> list[str]:
    """The words in the order of the indices that the JSON object gives them.

    Raises:
        DataError: the indices are not 0 … d−1.
    """
    index = read_json(path)
    if not isinstance(index, dict) or not all(type(number) is int for number in index.values()):
        raise DataError(f"{path.name} does not map words to numbers.")
    words = sorted(index, key=index.__getitem__)
    if [index[word] for word in words] != list(range(len(words))):
        raise DataError(f"{path.name} does not number its words 0 to {len(words) - 1}.")
    return words


def tokenise(mail: bytes, vocabulary: frozenset[str]) -> Iterator[str]:
    """Runs of two or more letters a-z, lower case, as lemmas.

    A word whose lemma is not in the vocabulary stays as it is written.
    """
    for word in WORD.findall(mail.decode("latin-1").lower()):
        root = lemma(word)
        yield root if root in vocabulary else word


@cache
def lemma(word: str) -> str:
    """The English dictionary form: "mails" → "mail"."""
    return simplemma.lemmatize(word, lang="en")
