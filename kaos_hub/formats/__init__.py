"""The files that people write: Dockerfiles, grids, manifests, configuration files of notebooks."""
