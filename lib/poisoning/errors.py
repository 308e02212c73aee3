"""Errors that tell the user what to change."""


class SolverError(RuntimeError):
    """A solver stopped short: the message names the problem, residual, tolerance and remedy."""


class DataError(RuntimeError):
    """Data could not be had, or are not what they claim to be; one sentence."""
