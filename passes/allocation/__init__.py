"""assign-precision: which bits each product of a graph gets, from measured quality and measured cost."""
