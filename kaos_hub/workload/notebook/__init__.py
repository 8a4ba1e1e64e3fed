"""A notebook server: its start, kernels, working copy, and the extension of Jupyter Server."""
