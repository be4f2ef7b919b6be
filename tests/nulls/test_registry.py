"""Does every null model say what it keeps, and refuse what it cannot randomise?"""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from modscope.errors import StatisticsError
from modscope.nulls import NULL_MODELS, LabelledUnits, null_model, null_named, shuffle_weights


@pytest.mark.parametrize("name", sorted(NULL_MODELS))
def test_every_null_says_what_it_keeps_and_destroys_and_survives_pickling(name: str) -> None:
    null = NULL_MODELS[name]
    first_line = (null.__doc__ or "").split("\n")[0]
    assert first_line.startswith("Keeps ")
    assert "; destroys " in first_line
    assert null.subject in {"weights", "graph", "labels", "masks"}
    assert null.__name__ == name
    assert pickle.loads(pickle.dumps(null)) is null


@pytest.mark.parametrize("name", sorted(NULL_MODELS))
def test_another_subject_is_an_error_that_says_what_is_randomised(name: str) -> None:
    with pytest.raises(StatisticsError, match=f"'{name}' randomises {NULL_MODELS[name].subject}.*got ndarray"):
        NULL_MODELS[name](np.zeros(3), 0)


def test_the_error_names_null_models_that_would_fit() -> None:
    with pytest.raises(StatisticsError, match="for that there are shuffle_labels_within_groups"):
        shuffle_weights(LabelledUnits(np.zeros(2, dtype=int), np.zeros(2, dtype=int)), 0)


def test_a_new_null_is_one_function_and_must_say_what_it_keeps() -> None:
    def flip(subject: LabelledUnits, rng: np.random.Generator) -> LabelledUnits:
        """Keeps the labels; destroys their order."""
        return LabelledUnits(subject.labels[::-1].copy(), subject.group_of)

    def silent(subject: LabelledUnits, rng: np.random.Generator) -> LabelledUnits:
        """Turn the labels round."""
        return subject

    try:
        null = null_model("labels")(flip)
        assert null_named("flip") is NULL_MODELS["flip"] is null
        assert null(LabelledUnits(np.array([0, 1]), np.zeros(2, dtype=int)), 0).labels.tolist() == [1, 0]
    finally:
        NULL_MODELS.pop("flip", None)
    with pytest.raises(StatisticsError, match="'silent' must begin 'Keeps"):
        null_model("labels")(silent)
    assert "silent" not in NULL_MODELS


def test_an_unknown_name_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(StatisticsError, match=r"no null model 'shuffle'; there are .*shuffle_weights"):
        null_named("shuffle")
