"""Attacks that a review got through with, and others of their kinds. Each test is one idea."""
