"""Data sanitisation: how a defender looks for poison."""

from poisoning.defenses.centroid import L2Defense, SlabDefense
from poisoning.defenses.knn import KNNDefense
from poisoning.defenses.loss import LossDefense
from poisoning.defenses.svd import SVDDefense

FIVE = (L2Defense(), SlabDefense(), LossDefense(), SVDDefense(), KNNDefense())
"""The defenses of Koh et al. 2021, in the paper's order."""
