"""The commands of ``kaos notebook``."""
