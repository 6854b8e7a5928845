"""Readers of the stars to ingest: arrays in HDF5 or npz, or FITS files in a folder with a table of labels."""
