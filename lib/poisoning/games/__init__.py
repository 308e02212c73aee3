"""Games: what attacker and defender both know, and the value of an attack."""
