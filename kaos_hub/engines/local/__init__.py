"""Workloads as processes of this machine, each in a sandbox where there is one."""
