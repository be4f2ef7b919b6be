"""The sample of photographs is unpacked in memory, and never more than it should be."""

import io
import zipfile

import pytest

from modscope.data.imagenet_sample import imagenet_sample, read_members
from modscope.errors import DataError


def _archive(**content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_members_come_in_the_asked_order():
    archive = _archive(a=b"first", b=b"second", c=b"third")
    assert list(read_members(archive, ["c", "a"], limit=10).items()) == [("c", b"third"), ("a", b"first")]


def test_a_member_that_unpacks_to_too_much_is_refused():
    with pytest.raises(DataError, match="more than 1000 bytes"):
        read_members(_archive(bomb=bytes(10**6)), ["bomb"], limit=1000)


def test_missing_members_and_broken_archives_are_refused():
    with pytest.raises(DataError, match="holds no 'b'"):
        read_members(_archive(a=b""), ["b"], limit=10)
    with pytest.raises(DataError, match="not a whole zip archive"):
        read_members(_archive(a=b"first")[:-4], ["a"], limit=10)
    broken = bytearray(_archive(a=b"first" * 100))
    broken[35] ^= 0xFF
    with pytest.raises(DataError, match="not a whole zip archive"):
        read_members(bytes(broken), ["a"], limit=1000)


@pytest.mark.data
def test_every_third_class_has_one_photograph(data_folder):
    sample = imagenet_sample(data_folder)
    assert sample.inputs.shape == (334, 3, 256, 256)
    assert sorted(sample.targets.tolist()) == list(range(0, 1000, 3))
