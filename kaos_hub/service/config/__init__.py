"""The configuration of the service, as traits."""
