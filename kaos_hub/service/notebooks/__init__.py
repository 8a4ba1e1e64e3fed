"""Notebooks: a request says what is wanted, and servers of the Hub are made so.

A request writes what is wanted (:mod:`.wishes`), :mod:`.hosting` makes it so. The start is decided
at the :mod:`.gate`, idleness in :mod:`.idle`.
"""
