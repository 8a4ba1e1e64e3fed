"""Workloads and builds on a Docker Engine."""
