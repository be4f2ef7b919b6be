"""The test run checks shapes and lets no connection out: a test of what `conftest.py` sets up."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

import modscope as ms
from shape_checks import speaks_of_an_array


def test_an_array_of_another_kind_is_refused_at_once():
    with pytest.raises(TypeCheckError):
        ms.UnitGroup("fc1", "hidden", np.ones(3), 1)


def test_axes_of_one_name_must_agree():
    from modscope.footprints import UnitWeights

    with pytest.raises(TypeCheckError):
        UnitWeights(np.ones((3, 2)), np.ones((4, 2)), np.ones((1, 3, 2)))


def test_a_wrong_array_reaches_the_code_where_shape_checks_are_off(unchecked_shapes):
    assert ms.UnitGroup("fc1", "hidden", np.ones(3), 1).size == 3


def test_what_is_no_array_meets_our_own_error():
    with pytest.raises(ms.WiringError, match=r"must be a torch\.nn\.Module, got str"):
        ms.read_wiring("a name", torch.zeros(1, 2))


@pytest.mark.parametrize("hint", [Float[np.ndarray, "a b"], Float[Tensor, ""] | None, dict[str, Float[Tensor, " a"]]])
def test_annotations_of_arrays_are_found_inside_others(hint):
    assert speaks_of_an_array(hint)


@pytest.mark.parametrize("hint", [int, np.ndarray, str | None, dict[str, int]])
def test_other_annotations_are_left_to_the_type_checker(hint):
    assert not speaks_of_an_array(hint)


@pytest.mark.parametrize("address", [("198.51.100.7", 80), ("example.invalid", 443)])
def test_no_connection_leaves_this_machine(address):
    with socket.socket() as outward, pytest.raises(ConnectionRefusedError, match="tests use no network"):
        outward.connect(address)


def test_loopback_is_open():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
