"""Offline work: synthetic surveys, fitting and evaluation of disentanglement methods."""
