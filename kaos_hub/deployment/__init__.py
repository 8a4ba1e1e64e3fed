"""Starting kaos_hub on one machine: the Hub, its proxy, the runtime for Docker, the first page."""
