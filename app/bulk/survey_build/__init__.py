"""`chemtwin survey build`: a survey file from a folder of spectra and a table of labels."""
