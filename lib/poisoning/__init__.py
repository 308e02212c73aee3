"""Solvers, attacks, defenses and data for reproducible data-poisoning research."""
