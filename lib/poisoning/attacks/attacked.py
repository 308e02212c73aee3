"""The interface of attacks and the result that every attack returns."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

Source = TypeVar("Source")


@dataclass(frozen=True)
class Attacked(Generic[Source]):
    """The best poison that an attack found, and its effect.

    ``poison`` is of the game's kind, in :class:`~poisoning.games.linear.LinearGame` a
    :class:`~poisoning.attacks.poisoned_set.PoisonedSet`. ``value`` is what the attacker maximises,
    as the game measures it. ``outcomes`` holds an outcome for the name of every defense, and for
    "none". ``source`` is what the poison was made from (a decoy, an iterate, …), ``history`` all
    candidates tried. ``skipped`` counts sources that gave no candidate: no feasible point, or no
    certified solution. ``seconds``: how long the attack took.
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


def playing(attack: Any, game: Any, kind: type) -> None:
    """Raise ``TypeError`` if ``game`` is not of the ``kind`` that ``attack`` plays."""
    if not isinstance(game, kind):
        raise TypeError(
            f"{type(attack).__name__} plays a {kind.__name__}, not a {type(game).__name__}."
        )


@runtime_checkable
class Attack(Protocol):
    """The settings of an attack, which is run on a game by ``attack(game, rng)``.

    An attack is a frozen dataclass. Its result depends only on its fields, the game and ``rng``, a
    seed or a generator.
    """

    def __call__(self, game: Any, rng: int | np.random.Generator) -> Attacked:
        """Attack ``game``."""
