"""configurable-http-proxy at a locked version, the gate before users' pages, the class for it."""
