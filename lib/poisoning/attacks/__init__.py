"""Data-poisoning attacks."""
