"""Measurements: a workload, what it is run on, and a peer."""
