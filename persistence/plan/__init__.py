"""Capacity planning: how long people will wait for each number of places. Pure, but for `history`."""
