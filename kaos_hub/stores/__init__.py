"""Stores of bytes. Each is one module and one entry point of the group ``kaos_hub.stores``."""
