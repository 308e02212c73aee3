"""Bags of words: x_j counts how often word j of a fixed vocabulary occurs in a document."""

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp

from poisoning.errors import DataError


def bag_of_words(documents: Iterable[Iterable[str]], vocabulary: list[str]) -> sp.csr_array:
    """The (n, d) int32 count matrix of tokenised documents; other words are dropped.

    Column indices are sorted within every row. d = ``len(vocabulary)``.
    """
    index = {word: column for column, word in enumerate(vocabulary)}
    columns, lengths = [], []
    for tokens in documents:
        known = [column for column in map(index.get, tokens) if column is not None]
        columns.append(np.array(known, dtype=np.int32))
        lengths.append(len(known))
    n = len(lengths)
    if n == 0:
        raise DataError("There are no documents to count words in.")
    rows = np.repeat(np.arange(n, dtype=np.int32), lengths)
    ones = np.ones(len(rows), dtype=np.int32)
    # Duplicates add up to the counts, and the conversion sorts the columns.
    counts = sp.coo_array((ones, (rows, np.concatenate(columns))), shape=(n, len(vocabulary)))
    return counts.tocsr()
