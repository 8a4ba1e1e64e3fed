"""Bundles in the store: versions, uploads, archives, browsing, deletion."""
