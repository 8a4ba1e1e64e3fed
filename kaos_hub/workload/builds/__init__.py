"""Steps of a build on a cluster: bases and pushing."""
