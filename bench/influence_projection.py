"""The influence attack's projection: the specialised solver beside cvxpy with Clarabel.

min ½‖x − p‖² over the feasible set, for points p that an influence attack asks for on its way. Our
solver has nothing to keep from one projection to the next; the peer, warm, solves one parametrised
problem again.
"""

from functools import partial
from typing import Any
from unittest.mock import patch

import cvxpy as cp
import numpy as np
from tqdm import tqdm

from bench.data import examples
from bench.timing import ColdAndWarm, Resolved
from poisoning.attacks import influence
from poisoning.attacks.influence import Influence
from poisoning.feasible import reference
from poisoning.feasible.sets import ClassSet
from poisoning.feasible.solver import project
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from replication.koh2021 import LAMBDA

NAME = "koh2021.influence_projection"
STEPS = (1, 5, 10, 20, 35, 50)  # of the ascent; at each a point per class


def run(bar: tqdm) -> dict[str, Any]:
    """The points of some steps, class by class."""
    points, source = _points_on_the_way()
    bar.reset(total=len(points))

    comparison = ColdAndWarm()
    problems: dict[int, Resolved] = {}
    for p, part in points:
        again = problems.get(id(part))
        if again is None:
            again = Resolved(lambda x, p: 0.5 * cp.sum_squares(x - p), part, p)
            problems[id(part)] = again
        ours = partial(project, p, part)
        comparison.run(ours, partial(reference.project, p, part), ours, partial(again, p))
        bar.update()
    return comparison.record(source)


summary = ColdAndWarm.summary


def _points_on_the_way() -> tuple[list[tuple[np.ndarray, ClassSet]], str]:
    """What an attack projects at ``STEPS``, as it calls for it, and the data's name."""
    data, source = examples("enron")
    game = LinearGame(
        data.X, data.y, data.X_test, data.y_test, domain="counts", learner=SVM(LAMBDA["enron"])
    )
    attack = Influence(positive_shares=(0.5,), iterations=STEPS[-1], check_every=STEPS[-1])
    with patch.object(influence, "project", wraps=project) as observed:
        attack(game, 0)
    calls = [call.args for call in observed.call_args_list]  # two a step, from step 0 on
    return [calls[2 * step + side] for step in STEPS for side in (0, 1)], source
