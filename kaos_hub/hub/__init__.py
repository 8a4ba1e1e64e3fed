"""Everything that runs in the process of JupyterHub."""
