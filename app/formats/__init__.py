"""What comes in and goes out, in each form: JSON, tables, FITS, arrays, pictures."""
