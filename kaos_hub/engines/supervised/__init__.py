"""Processes that outlive the service: a supervisor for each, adopted after a restart."""
