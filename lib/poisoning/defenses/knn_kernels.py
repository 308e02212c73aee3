"""Compiled inner loops of the k-NN defense: sparse inner products and running minima.

Assumed, and not checked: arrays are float64, C-contiguous and writable; ``indices`` and ``indptr``
are those of a valid CSR matrix of as many columns as the other has rows; ``out``, ``best`` and
``copies`` have the lengths of the rows and columns that they stand for.
"""

from poisoning.compiled import njit


@njit(cache=True)
def add_products(data, indices, indptr, data_t, indices_t, indptr_t, out):
    """out[r, j] += x_r · z_j: the x by rows, the z by columns (an inverted index)."""
    for r in range(out.shape[0]):
        row = out[r]
        for entry in range(indptr[r], indptr[r + 1]):
            value = data[entry]
            column = indices[entry]
            for other in range(indptr_t[column], indptr_t[column + 1]):
                row[indices_t[other]] += value * data_t[other]


@njit(cache=True)
def merge_smallest(products, row_norms, column_norms, copies, best):
    """Insert ‖x‖² + ‖z‖² − 2 x·z, ``copies`` times each, into the ascending rows of ``best``."""
    width = best.shape[1]
    for r in range(products.shape[0]):
        row = best[r]
        for j in range(products.shape[1]):
            distance = row_norms[r] + column_norms[j] - 2.0 * products[r, j]
            if distance >= row[width - 1]:
                continue
            for _ in range(min(copies[j], width)):
                if distance >= row[width - 1]:
                    break
                slot = width - 1
                while slot > 0 and row[slot - 1] > distance:
                    row[slot] = row[slot - 1]
                    slot -= 1
                row[slot] = distance
