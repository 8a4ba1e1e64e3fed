"""The kaos service: REST, pages and admission, as a managed service of JupyterHub."""
