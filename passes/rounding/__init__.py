"""Learned rounding of weights: the walk along two twins of a graph, and the methods that round one layer."""
