"""Owners as users of the Hub, and their memberships."""
