"""What attacker and defender both know, and what an attack is worth."""
