"""IMDB reviews: +1 is positive, −1 negative; 25,000 to train on and 25,000 to test on."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning.datasets.archives import read_tar
from poisoning.datasets.content import Content
from poisoning.datasets.text import bag_of_words
from poisoning.errors import DataError

LETTER = r"[^\W\d_]"
# Letters, joined inside a word by apostrophes, a hyphen, or both: don't, sci-fi, office'-like.
WORD = rf"{LETTER}++(?:(?:'+-?|-'?){LETTER}++)*"

Tokeniser = Callable[[str], list[str]]


def parse(folder: Path) -> Content:
    """Counts of the 89,527 words of ``imdb.vocab``; negative reviews first, in order of name.

    Raises:
        DataError: the archive holds no vocabulary or no reviews.
    """
    review = re.compile(r"aclImdb/(train|test)/(neg|pos)/[^/]+\.txt|aclImdb/imdb\.vocab")
    files = read_tar(folder / "aclImdb_v1.tar.gz", review.fullmatch)
    if "aclImdb/imdb.vocab" not in files:
        raise DataError("aclImdb_v1.tar.gz has no member aclImdb/imdb.vocab.")
    vocabulary = files.pop("aclImdb/imdb.vocab").decode("utf-8").split()
    tokenise = tokeniser(vocabulary)

    def part(name: str) -> tuple[sp.csr_array, Float[ndarray, "n"]]:
        reviews = {path: raw for path, raw in files.items() if path.startswith(f"aclImdb/{name}/")}
        X = bag_of_words((tokenise(raw.decode("utf-8")) for raw in reviews.values()), vocabulary)
        return X, np.array([1.0 if "/pos/" in path else -1.0 for path in reviews])

    X, y = part("train")
    X_test, y_test = part("test")
    return Content("counts", X, y, X_test, y_test, vocabulary)


def tokeniser(vocabulary: list[str]) -> Tokeniser:
    """The tokenisation that ``imdb.vocab`` was made with, recovered from the vocabulary.

    Lower case, entities resolved, ``<br />`` a space, curly quotes straight, ``'s`` deleted; then
    words, "!", "?" and the emoticons, which are what the vocabulary has besides words. Of 5.8
    million tokens in the training reviews 281 are not in the vocabulary, and of the vocabulary
    all but 4 of 89,527 words occur.
    """
    word = re.compile(WORD)
    symbols = sorted((v for v in vocabulary if not word.fullmatch(v)), key=lambda v: (-len(v), v))
    initials = re.escape("".join(sorted({symbol[0] for symbol in symbols})))
    # ":d" is an emoticon, but not within ":dragonfly".
    escaped = "|".join(
        (rf"(?<!{LETTER})" if symbol[0].isalpha() else "")
        + re.escape(symbol)
        + (rf"(?!{LETTER})" if symbol[-1].isalpha() else "")
        for symbol in symbols
    )
    # The look-ahead skips the long alternation at most positions.
    token = re.compile(rf"(?=[{initials}])(?:{escaped})|{WORD}" if symbols else WORD)

    def tokenise(review: str) -> list[str]:
        text = html.unescape(review.lower()).replace("<br />", " ")
        for apostrophe in "’‘`":
            text = text.replace(apostrophe, "'")
        return token.findall(text.replace("'s", ""))

    return tokenise
