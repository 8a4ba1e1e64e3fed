"""The commands of ``kaos train``."""
