"""Weights with zeros in a pattern: which ones go, in what order channels stand, and what a graph says of it."""
