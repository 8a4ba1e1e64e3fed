"""Workloads and builds as pods of a Kubernetes cluster."""
