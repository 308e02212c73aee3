"""Iterative optimisation: attack, let the anomaly detector refit, attack within its new limits.

Algorithm 1 and Section 5.4 of Koh et al. 2021. The centroids, and with them the L2 balls and the
slab, are those of clean data and poison together once the defender has seen the poison; a second
attack can use the limits as the first one has moved them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from poisoning.attacks.attacked import Attack, Attacked, an_attack, played, playing
from poisoning.checks import generator
from poisoning.errors import SolverError
from poisoning.games.linear import LinearGame
from poisoning.settings import COUNT, Settings, setting


@dataclass(frozen=True)
class Iterated(Settings):
    """Algorithm 1 around any attack: ``Iterated(KKT(0.03), 5)(game, rng)``.

    An attack that has a method ``resume(game, rng, last)`` goes on from its own points; others
    solve their problem again.
    """

    attack: Attack
    rounds: int = setting(5, COUNT, "attacks in a row, the first within the limits of clean data")

    def __post_init__(self) -> None:
        """Check ``attack`` too."""
        super().__post_init__()
        an_attack(self.attack, "Iterated: attack")

    def __call__(self, game: LinearGame, rng: int | np.random.Generator) -> Attacked:
        """The result of the round of highest value; its ``history`` holds all rounds' results.

        Rounds end early when a refitted feasible set is empty. Raises what the first round raises.
        """
        playing(self, game, LinearGame)
        begun = perf_counter()
        results = tuple(self.play(game, rng))
        best = max(results, key=lambda result: result.value)  # of equals the first
        return replace(best, history=results, seconds=perf_counter() - begun)

    def play(self, game: LinearGame, rng: int | np.random.Generator) -> Iterator[Attacked]:
        """Algorithm 1, round by round; a round may be worse than the one before.

        Raises what the first round raises; ``TypeError`` or ``ValueError`` if the attack does not
        return what an attack must.
        """
        playing(self, game, LinearGame)
        last: Attacked | None = None
        for stream in generator(rng).spawn(self.rounds):
            now = game if last is None else game.against(last.poison)
            try:
                last = played(self.attack, now, stream, last)
            except SolverError:
                if last is None:
                    raise
                return
            yield last
