"""The distributions of the paper's synthetic survey (section 4.1)."""

TABLE_1 = {"teff": (4000.0, 5000.0), "logg": (1.5, 3.0)}
"""Ranges of the paper's table 1, sampled uniformly: K, dex."""

TABLE_2 = {
    "fe_h": (-0.13, 0.24),
    "N": (0.28, 0.11),
    "O": (0.03, 0.08),
    "Na": (-0.05, 0.38),
    "Mg": (0.06, 0.08),
    "Al": (0.07, 0.09),
    "Si": (0.05, 0.07),
    "S": (0.05, 0.07),
    "K": (0.04, 0.07),
    "Ca": (0.02, 0.04),
    "Ti": (-0.01, 0.06),
    "V": (-0.01, 0.11),
    "Mn": (-0.04, 0.07),
    "Ni": (0.02, 0.04),
    "P": (-0.04, 0.18),
    "Cr": (-0.01, 0.06),
    "Co": (0.0, 0.15),
    "Rb": (-0.03, 0.29),
}
"""Mean and standard deviation (dex) of the paper's table 2: [Fe/H], and [X/Fe] of 17 elements."""
