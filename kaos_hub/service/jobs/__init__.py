"""The queue of jobs: builds and other work of an engine, their logs and outcomes."""
