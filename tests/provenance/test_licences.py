"""Licences of training data: what a card states, and which forbid derivatives."""

import pytest

from icmlora_cli.provenance.licences import (
    HUB,
    LONGEST,
    StatedLicences,
    forbids_derivatives,
    hub_datasets,
    identifier,
    no_derivatives,
    stated,
)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Apache-2.0", "apache-2.0"),
        (" The MIT License ", "mit"),
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc_by_4.0", "cc-by-4.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("AGPL-3.0-only", "agpl-3.0"),
        ("LGPL-2.1+", "lgpl-2.1"),
        ("CC0-1.0", "cc0-1.0"),
        ("GPL-2.0-or-later and others", None),
        ("PSF-2.0", None),
        ("public domain", None),
        ("other", None),
        ("", None),
    ],
)
def test_identifiers(text: str, known: str | None) -> None:
    assert identifier(text) == known


@pytest.mark.parametrize(
    "text",
    [
        *("CC-BY-ND-4.0", "cc by nd", "CC-BY-NC-ND-3.0-IGO", "cc_by_nc_nd", "Attribution-NoDerivatives 4.0"),
        *("Attribution-NonCommercial-NoDerivs", "no derivatives", "No-Derivative works", "Proprietary (internal)"),
        *("(c) Somebody, All Rights Reserved.", "MIT AND CC-BY-ND-4.0"),
    ],
)
def test_what_forbids_derivatives(text: str) -> None:
    assert forbids_derivatives(text)


@pytest.mark.parametrize(
    "text", ["MIT", "CC-BY-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", "derivatives allowed", "nd", "non-proprietaryish"]
)
def test_what_does_not(text: str) -> None:
    assert not forbids_derivatives(text)


def test_of_the_hubs_own_only_the_nd_ones_forbid() -> None:
    assert no_derivatives(HUB) == ("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0")


def test_what_a_card_states() -> None:
    assert stated(["MIT", "mit license"]) == StatedLicences("mit")
    assert stated([]) == stated([], unlicensed=3) == StatedLicences("unknown")
    assert stated(["MIT", "Apache-2.0"]) == StatedLicences("other", "apache-2.0-and-mit")
    assert stated(["MIT"], unlicensed=1) == StatedLicences("other", "mit-and-unstated")
    assert stated(["PSF-2.0"]) == StatedLicences("other", "psf-2.0")
    assert stated([f"licence {index}" for index in range(50)]) == StatedLicences("other", "several")
    strange = stated(["---\nlicense: mit\n<b>`x`: \x1b[31m" + "y" * 500])
    assert strange.license == "other" and strange.name is not None
    assert len(strange.name) <= LONGEST and set(strange.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert stated(["\u202e"]) == StatedLicences("other", "unnamed")


def test_datasets_of_the_hub() -> None:
    sources = [
        *("stanfordnlp/sst2", "https://huggingface.co/datasets/rajpurkar/squad", "hf://datasets/a/b/", "datasets/c/d"),
        *(
            None,
            "written for this page",
            "imported adapter a/b",
            "https://example.org/x/y",
            "../../x",
            "a/../b",
            "/a/b",
        ),
        *("a--b/c", "a/b\n---", "stanfordnlp/sst2"),
    ]
    assert hub_datasets(sources) == ("a/b", "c/d", "rajpurkar/squad", "stanfordnlp/sst2")
