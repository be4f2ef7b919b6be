"""What does every test get? Shape checks, one thread, no network, the data folder, reproducible examples."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

REPOSITORY = Path(__file__).resolve().parents[1]
IS_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

install_import_hook("modscope", "shape_checks.arrays_only")  # before anything imports modscope
torch.set_num_threads(1)  # another number of threads is another order of summation
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IS_CI else "local")


def missing(what: str) -> None:
    """Skip the test on a developer's machine; fail it in CI, where nothing may be missing."""
    if IS_CI:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of data sets and published networks: MODSCOPE_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("MODSCOPE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        missing(f"no data folder at {folder}; set MODSCOPE_DATA to the folder of data sets and networks")
    return folder


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Shape checks are off: for tests that hand in a wrong array, to see what modscope itself says about it."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Connections leave this machine in no test: only loopback and Unix sockets are allowed."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _only_local(getattr(socket.socket, name)))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


def _only_local(connect: Any) -> Any:
    def checked(self: socket.socket, address: Any) -> Any:
        is_local = self.family == socket.AF_UNIX or address[0] in ("localhost", "::1") or address[0].startswith("127.")
        if not is_local:
            raise ConnectionRefusedError(f"tests use no network, but one connects to {address}")
        return connect(self, address)

    return checked
