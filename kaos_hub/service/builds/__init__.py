"""Environments: their images, what failed in a build, and the bases that builds may use."""
