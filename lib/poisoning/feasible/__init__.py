"""The attacker's feasible set, and fast optimisation over it."""
