"""Builds on a Docker Engine: the bases, the builder of each owner, the resulting image."""
