"""Commands ended at random moments: `make fuzz` tries many more."""

import pytest

from fuzz import interruption


@pytest.mark.slow
def test_ten_commands_that_are_ended_anywhere_leave_nothing_and_go_on():
    found = interruption.run(seed=7, count=10, commands=("fetch", "unit"))
    assert found["faults"] == []
    assert found["tried"] == found["right"] + found["refused"] == 10
