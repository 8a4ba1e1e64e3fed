"""Printing for people and for programs: tables, bars, JSON."""
