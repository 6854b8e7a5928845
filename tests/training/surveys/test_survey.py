import h5py
import numpy as np
import pytest

from training.emulator.emulator import CARBON_LIMIT
from training.spectral_basis import parameter_values, training_ranges
from training.surveys.paper_tables import TABLE_1, TABLE_2
from training.surveys.survey import Survey
from training.surveys.synthetic_survey import draw_labels, synthesize


@pytest.fixture(scope="module")
def labels(emulator):
    return draw_labels(20_000, 3, emulator.labels, emulator.lo, emulator.hi)


def column(emulator, labels, name):
    return labels[:, emulator.labels.index(name)]


def test_twins_share_their_chemistry_and_nothing_else(emulator, labels):
    first, second = labels[::2], labels[1::2]
    own = [emulator.labels.index(name) for name in TABLE_1]
    shared = [i for i in range(labels.shape[1]) if i not in own]
    assert np.array_equal(first[:, shared], second[:, shared])
    assert abs(np.corrcoef(first[:, own[0]], second[:, own[0]])[0, 1]) < 0.03


@pytest.mark.parametrize("name", TABLE_1)
def test_parameters_are_uniform_over_table_1(emulator, labels, name):
    low, high = TABLE_1[name]
    values = column(emulator, labels, name)
    assert low <= values.min()
    assert values.max() <= high
    assert np.allclose(np.quantile((values - low) / (high - low), [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)


@pytest.mark.parametrize("name", TABLE_2)
def test_abundances_follow_table_2_within_the_box(emulator, labels, name):
    mean, sd = TABLE_2[name]
    values = column(emulator, labels, name)[::2]
    assert values.mean() == pytest.approx(mean, abs=0.03 * sd)
    assert values.std() == pytest.approx(sd, rel=0.03)
    box = emulator.labels.index(name)
    assert emulator.lo[box] <= values.min()
    assert values.max() <= emulator.hi[box]


def test_carbon_is_scaled_solar_and_never_beyond_oxygen(emulator, labels):
    assert np.all(column(emulator, labels, "C") == 0)
    assert -column(emulator, labels, "O").min() <= CARBON_LIMIT


def test_the_file_holds_what_the_contract_says(survey, emulator):
    with h5py.File(survey.path) as file:
        assert file["flux"].shape == (1200, 7514)
        assert file["flux"].chunks is not None
        assert np.array_equal(file["wavelength"], emulator.wavelength)
        assert file["abundances"].shape == (1200, 18)
        assert list(file["abundances"].attrs["names"])[:3] == ["C", "N", "O"]
        assert file["star_id"].asstr()[0] == "SYN-101-000000A"
        assert file["twin_of"].asstr()[0] == "SYN-101-000000B"
        assert set(file) >= {"teff", "logg", "fe_h"}
    assert np.array_equal(survey.twin, np.arange(1200) ^ 1)


def test_a_seed_gives_one_survey_and_noise_is_as_asked(tmp_path, emulator):
    paths = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5", "quiet.h5")]
    for path, seed, snr in zip(paths, (5, 5, 6, 5), (50, 50, 50, np.inf), strict=True):
        synthesize(path, emulator, 40, seed, snr)
    flux = [h5py.File(path)["flux"][:] for path in paths]
    assert np.array_equal(flux[0], flux[1])
    assert not np.array_equal(flux[0], flux[2])
    noise = flux[0] - flux[3]
    assert noise.std() == pytest.approx(1 / 50, rel=0.01)
    assert abs(noise.mean()) < 1e-4
    assert np.all(Survey.open(paths[0]).snr == 50)


def test_a_file_that_is_no_survey_says_what_it_lacks(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["flux"] = np.zeros((1, 2))
    with pytest.raises(ValueError, match="lacks fe_h, logg"):
        Survey.open(tmp_path / "x.h5")


def test_twins_can_share_all_but_fe_h(emulator, tmp_path):
    synthesize(tmp_path / "xfe.h5", emulator, 20, seed=5, own_fe_h=True)
    survey = Survey.open(tmp_path / "xfe.h5")
    assert survey.own_fe_h
    with h5py.File(survey.path) as file:
        chemistry = file["abundances"][:]
    assert np.array_equal(chemistry[::2], chemistry[1::2])
    assert np.abs(survey.parameters[::2] - survey.parameters[1::2]).min() > 0


def test_groups_share_a_chemistry(emulator, tmp_path):
    synthesize(tmp_path / "groups.h5", emulator, 7, seed=6, members=5)
    survey = Survey.open(tmp_path / "groups.h5")
    assert np.array_equal(survey.group, np.repeat(np.arange(7), 5))
    assert survey.twin is None
    assert not survey.own_fe_h
    assert survey.star_id[:2] == ["SYN-6-000000A", "SYN-6-000000B"]
    fe_h = survey.parameters[:, 2].reshape(7, 5)
    assert np.all(fe_h == fe_h[:, :1])
    assert len(np.unique(survey.parameters[:, 0])) == 35


@pytest.fixture
def with_fibre(tmp_path, survey):
    """Changes a copy of the survey's labels and opens it, with two pixels of flux."""

    def make(**datasets):
        path = tmp_path / "extra.h5"
        with h5py.File(survey.path) as old, h5py.File(path, "w") as file:
            for name in ("star_id", "teff", "logg", "fe_h", "twin_of", "abundances"):
                old.copy(name, file)
            file["wavelength"] = old["wavelength"][:2]
            file["flux"] = old["flux"][:, :2]
            for name, values in datasets.items():
                file[name] = values
            file["fibre"].attrs["unit"] = "number"
        return Survey.open(path)

    return make


def test_any_dataset_of_one_number_per_star_can_be_asked_for(with_fibre, survey):
    fibre = np.arange(1200) % 300
    opened = with_fibre(fibre=fibre, fibre_err=np.ones(1200), comment=np.array([b"x"] * 1200), short=np.ones(7))
    assert opened.extra == ("fibre",)
    assert np.array_equal(
        parameter_values(opened, ("fe_h", "fibre")), np.stack([survey.parameters[:, 2], fibre], axis=1)
    )
    assert opened.units(("teff", "fibre")) == {"fibre": "number"}
    with pytest.raises(ValueError, match="lacks vbroad, one number per star: it has teff, logg, fe_h, fibre"):
        parameter_values(opened, ("teff", "vbroad"))
    with pytest.raises(ValueError, match="lacks abundances"):
        parameter_values(opened, ("abundances",))


def test_values_that_cannot_be_conditioned_on_are_refused(with_fibre):
    with pytest.raises(ValueError, match="fibre is not finite, or -9999: 2 stars"):
        parameter_values(with_fibre(fibre=np.r_[np.nan, np.inf, np.ones(1198)]), ("fibre",))
    with pytest.raises(ValueError, match="all stars have the same fibre"):
        training_ranges(with_fibre(fibre=np.ones(1200)), ("teff", "fibre"))


def test_extra_labels_are_part_of_a_surveys_identity(with_fibre, survey):
    identities = {with_fibre(fibre=np.arange(1200) + i).identity() for i in range(2)}
    assert len(identities | {survey.identity()}) == 3
