"""Planted bugs: proof that the tests can fail."""
