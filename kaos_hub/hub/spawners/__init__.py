"""Spawners: how the Hub starts what the service admits, on each engine."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
"""Pages of the Hub that we change, and the spawn form."""
