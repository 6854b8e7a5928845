// Where to look: [element, vacuum wavelength in Angstrom] of lines in APOGEE's bands.
// tests/app/routes/test_explorer.py: at each the emulator's spectrum deepens with its element's abundance.

export const LINES = await (await fetch(new URL("lines.json", import.meta.url))).json();
