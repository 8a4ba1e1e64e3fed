"""The web framework of the service, below its API and pages: requests, bodies, streams, limits."""
