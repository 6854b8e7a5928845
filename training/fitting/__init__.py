"""Fitting the methods that are not networks."""
