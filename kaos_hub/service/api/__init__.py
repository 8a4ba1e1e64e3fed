"""The REST API: handlers, their table of routes, and the OpenAPI document made of it."""
