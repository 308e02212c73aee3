"""The interface of attacks and the result that every attack returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from poisoning.attacks.poisoned_set import PoisonedSet

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

    Any callable of this form is an attack; those of this library are frozen dataclasses. The result
    should depend only on the settings, the game and ``rng``, a seed or a generator.
    """

    def __call__(self, game: Any, rng: int | np.random.Generator) -> Attacked:
        """Attack ``game``."""


def an_attack(attack: Any, name: str) -> Attack:
    """``attack`` itself; ``name`` is the argument's.

    Raises ``ValueError`` if it cannot be called as an attack: a class is none.
    """
    if isinstance(attack, type) or not callable(attack):
        raise ValueError(f"{name} must be an attack such as KKT(0.03), not {attack!r:.100}.")
    return attack


def several(attacks: Any) -> Sequence[Attack]:
    """The argument ``attacks`` itself.

    Raises ``ValueError`` if it is no sequence of attacks.
    """
    if isinstance(attacks, str) or not isinstance(attacks, Sequence):
        raise ValueError(f"attacks must be a sequence of attacks, not {attacks!r:.100}.")
    for attack in attacks:
        an_attack(attack, "attacks: each")
    return attacks


def played(
    attack: Attack, game: Any, rng: int | np.random.Generator, last: Attacked | None = None
) -> Attacked:
    """The result of anybody's ``attack`` on a :class:`~poisoning.games.linear.LinearGame`.

    After the result ``last``, an attack that can ``resume`` does.

    Raises ``TypeError`` if the result is no :class:`Attacked` with a
    :class:`~poisoning.attacks.poisoned_set.PoisonedSet`, ``ValueError`` if its value is no finite
    number; whatever the attack raises.
    """
    if last is not None and hasattr(attack, "resume"):
        found = attack.resume(game, rng, last)
    else:
        found = attack(game, rng)
    who = f"attack {attack!r:.100}"
    if not isinstance(found, Attacked):
        raise TypeError(f"{who} must return an Attacked, not {found!r:.100}.")
    if not isinstance(found.poison, PoisonedSet):
        raise TypeError(f"{who} must return a PoisonedSet as poison, not {found.poison!r:.100}.")
    if not isinstance(found.value, int | float | np.number) or not np.isfinite(found.value):
        raise ValueError(f"{who} must return a finite number as value, not {found.value!r:.100}.")
    return found
