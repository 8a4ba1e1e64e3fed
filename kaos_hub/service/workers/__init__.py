"""The interface for workers inside containers: leases, trees, listings."""
