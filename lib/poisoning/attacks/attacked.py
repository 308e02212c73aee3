"""What an attack is, and what every attack returns."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

Source = TypeVar("Source")


@dataclass(frozen=True)
class Attacked(Generic[Source]):
    """The best poison that an attack found, and what it does.

    ``poison`` is of the game's kind, in :class:`~poisoning.games.linear.LinearGame` a
    :class:`~poisoning.attacks.poisoned_set.PoisonedSet`. ``value`` is what the attacker maximises,
    as the game measures it. ``outcomes``: by the name of a defense, "none" among them. ``source``
    is where the poison came from, a decoy, an iterate …, and ``history`` all that was tried.
    ``skipped`` counts sources that gave no candidate: no feasible point, or no certified solution.
    ``seconds``: how long the attack took.
    """

    poison: Any
    value: float
    outcomes: dict[str, Any]
    source: Source | None = None
    history: tuple[Any, ...] = ()
    skipped: int = 0
    seconds: float = 0.0

    @property
    def errors(self) -> dict[str, float]:
        """Test error by the name of a defense.

        Raises ``AttributeError`` in a game that does not measure errors, such as
        :class:`~poisoning.games.multi_task.MultiTaskGame`.
        """
        return {name: outcome.test_error for name, outcome in self.outcomes.items()}


@runtime_checkable
class Attack(Protocol):
    """Settings that play a game: ``attack(game, rng)``.

    An attack is a frozen dataclass. What it does depends on its fields, the game and ``rng``, a
    seed or a generator, alone.
    """

    def __call__(self, game: Any, rng: int | np.random.Generator) -> Attacked:
        """Play ``game``."""
