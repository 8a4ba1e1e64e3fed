"""Small tools that know nothing of kaos_hub: quantities, processes, log lines, TLS."""
