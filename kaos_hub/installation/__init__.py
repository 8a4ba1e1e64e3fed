"""One installation of kaos_hub: its data directory, addresses, ports, certificates and logins."""
