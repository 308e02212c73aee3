"""Data-poisoning attacks; every attack returns a :class:`~lib.attacks.poisoned_set.PoisonedSet`."""
