"""A sample of the random problems that ``make fuzz`` tries by the thousand."""

import pytest

from fuzz import solvers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_no_answer_is_wrong_and_nothing_crashes(name):
    found = solvers.run(20, count=40, names=(name,))[name]
    assert found["tried"] == 40
    assert found["wrong"] == found["crashed"] == found["refused"] == 0, found["samples"]


class Off:
    """An answer of :func:`train_svm` with a weight changed."""

    def __init__(self, solution):
        self.model, self.alpha = solution.model, 1.001 * solution.alpha


def test_a_wrong_answer_is_noticed():
    right = solvers.SOLVERS["svm"]
    wrong = solvers.Solver(right.draw, lambda p: Off(right.solve(p)), right.judge)
    verdicts = [solvers.attempt(wrong, 20, number)[0] for number in range(20)]
    # Where all α are 0, or λ is large, a thousandth of them is within the tolerance.
    assert verdicts.count("wrong") >= 15


@pytest.mark.parametrize("number", [250, 278, 617, 4012])
def test_a_gap_that_only_rounding_hides_is_none_of_the_answers(number):
    # λ so small that the rounding of a margin of 1 is more than the tolerance of the objective.
    assert solvers.attempt(solvers.SOLVERS["svm"], 0, number)[:2] == ("right", "")
