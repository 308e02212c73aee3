"""Hypergradients by reverse mode, forward mode and implicit differentiation."""
