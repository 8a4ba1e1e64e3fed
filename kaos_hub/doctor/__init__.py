"""The checks of ``kaos doctor``: of this machine, and of a cluster."""
