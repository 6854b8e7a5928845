"""Draw the figure of docs/explanation/what-to-expect.md: how often the twin is found, by S/N.

    python docs/figures/expect.py

The numbers are those of research/report, as research/quality.md says how they were measured.
"""

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from training.evaluation.figures import BLUE, GREY, ORANGE, STYLE

REPORT = Path(__file__).parents[2] / "research" / "report"
SNR = (100, 70, 50, 30, 20)


def main() -> None:
    """Write expect.png beside this file."""
    model = json.loads((REPORT / "gaussdis-pseudo.json").read_text())["twins"]["paper's pairs"]
    limit = json.loads((REPORT / "limit.json").read_text())["paper's pairs/2"]["removed"]["teff, logg, fe_h"]
    curves = {
        "nobody can find more": ([limit["twins"][str(snr)]["recovered"]["fraction"] for snr in SNR], GREY, ":"),
        "found by likelihood": ([model[str(snr)]["likelihood"]["fraction"] for snr in SNR], BLUE, "--"),
        "found by distance": ([model[str(snr)]["recovered"] for snr in SNR], ORANGE, "-"),
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, (found, colour, line) in curves.items():
            axes.plot(SNR, found, color=colour, linestyle=line, marker="o", label=name)
        axes.set_xlabel("S/N per pixel")
        axes.set_ylabel("fraction of stars whose twin is the nearest")
        axes.set_ylim(0, 1.02)
        axes.legend()
        figure.savefig(Path(__file__).with_name("expect.png"), dpi=150)


if __name__ == "__main__":
    main()
