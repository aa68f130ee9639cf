"""Whole processes against real servers."""
