"""Data sanitisation: what a defender does to find poison, and what it leaves of an attack."""
