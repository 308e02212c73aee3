"""Errors that tell the user what to change."""


class SolverError(RuntimeError):
    """A solver did not converge: the message names the problem, residual, tolerance and remedy."""


class DataError(RuntimeError):
    """Data are missing, or differ from what was registered; the message is one sentence."""
