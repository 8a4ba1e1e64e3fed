"""Commands for the people who run a hub."""
