// Where to look: lines of elements in APOGEE's bands, vacuum wavelengths in Angstrom.
// tests/app/test_explorer.py: at each the emulator's spectrum deepens with its element's abundance.

export const LINES = [
  ["Mg", 15745.0], ["Mg", 15753.3], ["Mg", 15770.1],
  ["Al", 16723.5], ["Al", 16755.1], ["Al", 16767.9],
  ["Si", 15964.4], ["Si", 16685.3],
  ["K", 15167.2], ["K", 15172.5],
  ["Ca", 16141.2], ["Ca", 16155.2], ["Ca", 16161.8],
  ["Ti", 15547.9], ["Ti", 15719.8],
  ["V", 15929.2],
  ["Cr", 15684.3],
  ["Mn", 15222.0], ["Mn", 15266.5],
  ["Co", 16762.3],
  ["Ni", 15609.9], ["Ni", 15636.9], ["Ni", 16589.0],
  ["Na", 16378.3], ["Na", 16393.4],
  ["S", 15482.7],
];
