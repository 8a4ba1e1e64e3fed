"""Laying trees of the store out, inside a container."""
