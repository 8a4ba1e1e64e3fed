"""Speaking to the service: connections, tickets, credentials, objects in packets."""
