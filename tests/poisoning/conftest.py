"""What tests of the library share."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """As users have it: no type checker refuses an argument before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
