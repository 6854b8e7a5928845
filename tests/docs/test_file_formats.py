"""Each row of the table of what is accepted, converted and refused is shown by tests that exist."""

import ast
import re

import pytest

from tests.conftest import ROOT

SHOWN_BY = {
    "an id as text": "app/routes/test_api::test_ids_are_taken_digit_for_digit "
    "app/bulk/readers/test_open_stars::test_ids_of_a_survey_are_digit_for_digit",
    "an id as an integer": "app/routes/test_api::test_ids_are_taken_digit_for_digit "
    "app/values/test_identifiers_and_numbers::test_identifiers_are_text_digit_for_digit",
    "an id as a floating-point number": "app/routes/test_errors::test_embed_refuses "
    "app/values/test_identifiers_and_numbers::test_numbers_of_floating_point_are_no_identifiers",
    "an id such as `4.29E+18` or `12345.0`": "app/routes/test_accepted::test_an_id_that_was_a_number_or_stands_for_none_is_refused "
    "app/bulk/test_ingest::test_refused_stars_are_named_and_stop_no_other",
    "an id such as `nan`, `None`, `null`": "app/routes/test_accepted::test_an_id_that_was_a_number_or_stands_for_none_is_refused "
    "app/values/test_identifiers_and_numbers::test_identifiers_are_text_digit_for_digit",
    "no id: blank, masked, NaN": "app/routes/test_errors::test_embed_refuses "
    "app/bulk/readers/test_open_stars::test_a_damaged_row_names_column_row_and_star_and_stops_no_other "
    "app/bulk/readers/test_open_stars::test_without_star_id_the_file_says_which_star_it_is",
    "an id twice": "app/routes/test_accepted::test_of_stars_with_one_id_in_a_body_the_first_is_stored "
    "app/bulk/test_ingest::test_of_rows_with_one_id_the_first_is_stored_and_the_same_command_again_stores_nothing",
    "a label (`teff`, `logg`, `fe_h`, a model's extra parameter): blank, null, masked, NaN, infinite, -9990 or less": (
        "app/routes/test_accepted::test_an_unknown_label_is_refused_over_http "
        "app/bulk/readers/test_open_stars::test_an_unknown_label_stops_its_star_only "
        "app/values/test_identifiers_and_numbers::test_unknown_numbers_are_nan"
    ),
    "a label that no star has, such as 99.99 dex or 43 K": "app/routes/test_accepted::test_an_unknown_label_is_refused_over_http "
    "app/bulk/readers/test_open_stars::test_a_damaged_row_names_column_row_and_star_and_stops_no_other",
    "an error of a label, `ra`, `dec`: the same": "app/routes/test_api::test_an_error_that_is_null_is_not_known "
    "app/routes/test_accepted::test_an_unknown_position_of_an_npz_is_none "
    "app/bulk/readers/test_open_stars::test_an_unknown_error_or_position_is_none",
    "text for a number": "app/routes/test_accepted::test_text_is_no_number_over_http "
    "app/values/test_identifiers_and_numbers::test_numbers_may_be_text_and_text_that_is_none_is_an_error_of_its_row "
    "app/bulk/readers/test_open_stars::test_a_survey_of_another_shape_is_refused",
    "truth values for a number": "app/routes/test_accepted::test_text_is_no_number_over_http "
    "app/bulk/readers/test_open_stars::test_a_survey_of_another_shape_is_refused",
    "a unit of a column": "app/values/test_identifiers_and_numbers::test_units_are_converted "
    "app/values/test_identifiers_and_numbers::test_units_that_cannot_be_converted_are_refused "
    "app/bulk/readers/test_open_stars::test_units_of_datasets_are_converted_or_refused",
    "wavelengths in air": "model/spectra/test_apogee::test_wavelengths_in_air_are_refused "
    "app/bulk/readers/test_open_stars::test_units_of_datasets_are_converted_or_refused",
    "wavelengths of another range, or over 3 times as far apart as the model's 0.22 Angstrom": (
        "app/routes/test_accepted::test_wavelengths_in_nanometres_are_refused_with_a_hint "
        "model/spectra/test_spectrum::test_pixels_too_wide_to_be_resampled_are_said"
    ),
    "an `error` or `ivar` of 0, negative, NaN or infinite": "model/spectra/test_pixels::test_an_error_becomes_an_inverse_variance "
    "app/routes/test_accepted::test_errors_that_say_nothing_ignore_the_pixel",
    "a flux that is not finite": "app/routes/test_api::test_masked_pixels_may_be_null "
    "app/routes/test_accepted::test_a_flux_that_is_not_finite_must_be_masked",
    "errors that make an S/N below 1 or above 3,000, or a few pixels with nearly all weight": (
        "model/spectra/test_spectrum::test_an_odd_snr_is_a_warning "
        "model/spectra/test_spectrum::test_errors_sent_as_inverse_variances_are_asked_about"
    ),
    "pixels whose weight is next to nothing beside the others'": "model/spectra/test_spectrum::test_pixels_that_say_next_to_nothing_are_masked",
    "a flux of exactly 0": "model/spectra/test_spectrum::test_a_flux_of_exactly_zero_is_no_flux",
    "`snr`: not positive, NaN or infinite": "app/bulk/readers/test_open_stars::test_an_snr_that_is_not_positive_and_finite_is_unknown",
    "a bit mask of integers": "app/routes/test_api::test_a_mask_is_read_alike_whatever_its_type "
    "app/bulk/readers/test_open_stars::test_a_mask_of_any_type_of_number_is_understood",
    "a bit mask of floating-point numbers": "model/spectra/test_pixels::test_numbers_that_are_no_bits_are_refused "
    "app/bulk/readers/test_open_stars::test_a_mask_of_any_type_of_number_is_understood",
    "a bit mask of truth values": "model/spectra/test_pixels::test_true_is_bad "
    "app/bulk/readers/test_open_stars::test_a_mask_of_any_type_of_number_is_understood",
    "masked pixels of more than half of the model's, after its own normalisation": (
        "model/spectra/test_spectrum::test_a_spectrum_that_loses_most_pixels_with_its_continuum_is_refused"
    ),
    "an apStar, asStar, aspcapStar, mwmStar, mwmVisit": "model/spectra/test_apogee::test_dr17_files_are_read "
    "model/spectra/test_apogee::test_an_aspcapstar_gives_the_pipelines_labels "
    "model/spectra/test_mwm::test_an_mwmstar_gives_its_apogee_spectrum "
    "model/spectra/test_mwm::test_a_visit_at_rest_is_taken_of_an_mwmvisit",
    "the same gzipped": "app/routes/test_api::test_a_gzipped_file_and_warnings_of_what_was_done_with_this_star "
    "app/bulk/readers/test_open_stars::test_gzipped_files_are_read",
    "an apVisit, asVisit or astraStar": "model/spectra/test_apogee::test_what_to_send_instead_of_another_product",
    "a label that is missing beside an aspcapStar": "model/spectra/test_apogee::test_the_flags_of_labels_go_with_the_labels "
    "app/bulk/readers/test_open_stars::test_a_table_must_have_every_label",
    "a file's warning of a label that was not used": (
        "app/routes/test_api::test_a_gzipped_file_and_warnings_of_what_was_done_with_this_star "
        "app/bulk/readers/test_open_stars::test_the_warnings_are_those_of_what_was_done"
    ),
    "a file of another star than `star_id`, by 2MASS designations": (
        "app/routes/test_accepted::test_a_file_of_another_star_is_refused_over_http "
        "app/bulk/readers/test_open_stars::test_a_file_of_another_star_is_refused"
    ),
    "a position far from the 2MASS designation of the id": "app/routes/test_accepted::test_a_position_far_from_the_designation_is_a_warning",
    "labels far from the file's own": "app/routes/test_accepted::test_labels_far_from_the_files_own_are_a_warning "
    "app/bulk/readers/test_open_stars::test_labels_far_from_the_files_own_are_a_warning",
    "an apStar with flags as floating-point numbers": "model/spectra/test_apogee::test_flags_may_be_floating_point_numbers",
    "two files in one body": "model/spectra/test_apogee::test_two_files_in_one_are_refused",
    "several files of one star in a folder": "app/bulk/readers/test_star_files::test_of_several_products_the_order_is_the_stated_one "
    "app/bulk/readers/test_star_files::test_two_files_of_one_product_are_refused_by_name",
    "numbers that are no position in degrees": "app/routes/test_accepted::test_half_a_position_is_none "
    "app/bulk/readers/test_open_stars::test_numbers_that_are_no_position_are_named",
    "an extra column of one value a star": "app/bulk/readers/test_open_stars::test_extra_datasets_of_a_survey_go_into_meta "
    "app/bulk/readers/test_open_stars::test_extra_columns_of_a_table_go_into_meta",
    "an unknown array or field": "app/routes/test_errors::test_embed_refuses app/bulk/test_ingest::test_stars_to_look_at_are_counted_and_listed",
    "HDF5, pickles": "app/routes/test_errors::test_embed_refuses app/bulk/test_ingest::test_what_is_no_source_is_refused",
}


def test_the_table_has_the_rows_that_are_tested():
    page = (ROOT / "docs" / "reference" / "file-formats.md").read_text()
    section = page.partition("## What is accepted, converted and refused")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    assert rows[0] == "what comes in"
    assert rows[1:] == list(SHOWN_BY)


@pytest.mark.parametrize("row", SHOWN_BY)
def test_the_tests_of_a_row_exist(row):
    for name in SHOWN_BY[row].split():
        module, _, function = name.partition("::")
        tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
