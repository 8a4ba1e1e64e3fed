"""Cloning a Git repository into a notebook."""
