"""The network of each owner on a Docker Engine, and the rules that separate it."""
