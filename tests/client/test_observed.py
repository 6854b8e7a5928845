"""Clusters, observed spectra and recasts with residuals, of the observed giants that ship."""

import numpy as np
import pytest
from astropy import units as u
from chemtwin_client import Chemtwin, ChemtwinWarning, NotFound

STAR = "2M08512156+1146061"


@pytest.fixture
def observed(giants):
    with Chemtwin(giants.url) as chem:
        yield chem


def test_clusters(observed):
    members = observed.stars(cluster="M67")
    assert len(members) == 15
    assert set(members["cluster"]) == {observed.star(STAR).cluster} == {"M67"}
    assert [star.star_id for star in observed.iter_stars(cluster="none")] == []
    siblings = observed.twins(STAR, k=5, cluster="M67")
    assert set(siblings["cluster"]) == {"M67"}
    assert siblings.meta["within"] == pytest.approx(0.151, abs=1e-3)
    assert "M67" not in observed.twins(STAR, k=5, not_cluster="M67", fe_h_within="any")["cluster"]
    several = observed.twins_many([STAR, members["star_id"][0]], k=2, cluster="M67", progress=False)
    assert set(several["cluster"]) == {"M67"}


def test_stars_of_no_cluster_have_an_empty_cell(chem):
    assert set(chem.twins("SYN-202-000000A", k=3)["cluster"]) == {""}


def test_an_observed_spectrum(observed):
    spectrum = observed.spectrum(STAR)
    assert spectrum.spectral_axis.unit == u.AA
    known = ~spectrum.mask
    assert 0.9 < known.mean() < 1
    assert np.isfinite(spectrum.flux.value[known]).all()
    noise = spectrum.uncertainty.array[known]
    assert (noise > 0).all()
    residual = (spectrum.flux.value - spectrum.meta["reconstruction"])[known]
    assert 0.5 < np.sqrt(np.mean((residual / noise) ** 2)) < 20
    assert (spectrum.meta["star_id"], spectrum.meta["model"]) == (STAR, observed.star(STAR).model)
    own = observed.recast(STAR, {}, residual=True)
    assert own.meta["residual"] is True
    assert np.allclose(own.flux.value, spectrum.flux.value, atol=2e-5, equal_nan=True)
    assert np.array_equal(own.mask, spectrum.mask)
    twins = observed.twins(own, k=1, **observed.star(STAR).labels, teff_err=70, logg_err=0.12, fe_h_err=0.04)
    assert twins["star_id"][0] == STAR, "masked pixels stay masked"
    with pytest.warns(ChemtwinWarning, match="typical errors"):
        again = observed.recast(spectrum, {}, residual=True, **observed.star(STAR).labels)
    apart = np.abs(again.flux.value - spectrum.flux.value)[known]
    assert np.nanmedian(apart) < 0.005, "normalised once more"


def test_a_spectrum_that_is_not_stored(chem):
    with pytest.raises(NotFound, match="CHEMTWIN_STORE_SPECTRA") as raised:
        chem.spectrum("SYN-202-000000A")
    assert raised.value.code == "no_spectrum"


def test_typical_errors_are_counted_in_one_sentence_and_are_no_warnings(observed):
    spectrum, labels = observed.spectrum(STAR), observed.star(STAR).labels
    errors = {"teff_err": [np.nan, 70.0], "logg_err": [np.nan, 0.12], "fe_h_err": [np.nan, 0.04]}
    table = {"star_id": ["TYPICAL-1", "TYPICAL-2"], **{name: [value] * 2 for name, value in labels.items()}}
    with pytest.warns(ChemtwinWarning) as warned:
        done = observed.embed_many([spectrum] * 2, table | errors, progress=False)
    for star_id in done["star_id"]:
        observed.delete(star_id)
    assert list(done["outcome"]) == ["stored", "stored"]
    assert str(warned[-1].message) == (
        "2 stars: 0 with warnings (column warnings), 0 outside the model's domain (column in_domain), 0 refused "
        "(columns code and message); for 1 without errors of some parameters the model's typical errors are used: "
        "0 means exact"
    )
