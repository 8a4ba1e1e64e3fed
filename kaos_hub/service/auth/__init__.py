"""Identity and rights of those who ask the service."""
