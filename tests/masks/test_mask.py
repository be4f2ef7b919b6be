from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modscope.errors import MaskError, RecordError
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metrics import io_min, iou, remaining, shared

SHAPES = {"first.weight": (3, 4), "second.weight": (2, 3), "second.bias": (2,)}


def random_mask(seed: int, share: float = 0.5) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    logits = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    strata = {name: torch.randint(0, 11, shape, generator=generator).to(torch.uint8) for name, shape in SHAPES.items()}
    kept = {name: tensor > 0 for name, tensor in logits.items()}
    return Mask(kept, logits, {"task": f"task {seed}"}, strata)


def flat(mask: Mask) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in mask.kept.values()])


seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seeds, seeds, seeds)
def test_masks_obey_the_laws_of_sets(a: int, b: int, c: int) -> None:
    one, two, three = random_mask(a), random_mask(b), random_mask(c)
    assert ~(one & two) == ~one | ~two
    assert one - two == one & ~two
    assert one & (two | three) == (one & two) | (one & three)
    assert ~~one == one
    assert (one & ~one).n_kept == 0
    assert (one | ~one).density == 1


@settings(max_examples=25, deadline=None)
@given(seeds, seeds)
def test_iou_and_io_min_agree_with_counting_entries_one_by_one(a: int, b: int) -> None:
    one, two = random_mask(a), random_mask(b)
    both = sum(x and y for x, y in zip(flat(one).tolist(), flat(two).tolist(), strict=True))
    either = sum(x or y for x, y in zip(flat(one).tolist(), flat(two).tolist(), strict=True))
    assert iou(one, two) == pytest.approx(both / either)
    assert io_min(one, two) == pytest.approx(both / min(one.n_kept, two.n_kept))
    assert remaining(one, two) == pytest.approx(both / one.n_kept)
    assert shared(two, [one]) == pytest.approx(both / two.n_kept)


def test_io_min_of_a_part_and_its_whole_is_one() -> None:
    whole = random_mask(0)
    part = whole & random_mask(1)
    assert io_min(part, whole) == 1
    assert iou(part, whole) == part.n_kept / whole.n_kept


def test_overlap_of_empty_masks_is_undefined_rather_than_an_error() -> None:
    empty = Mask({"weight": torch.zeros(2, 2, dtype=torch.bool)})
    full = ~empty
    assert iou(empty, empty) != iou(empty, empty)  # NaN
    assert io_min(empty, full) != io_min(empty, full)
    assert iou(empty, full) == 0


def test_density_of_a_hand_made_mask_counts_kept_entries() -> None:
    mask = Mask({"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([True, True])})
    assert mask.density == 3 / 6
    assert mask.densities == {"a": 0.25, "b": 1.0}
    assert mask.to_frame()["kept"].to_list() == [1, 2, 3]


def test_a_learned_mask_at_threshold_zero_is_itself() -> None:
    mask = random_mask(3)
    assert mask.at(0.0) == mask
    assert mask.at(1.0).n_kept < mask.n_kept
    assert (mask.at(1.0) - mask).n_kept == 0


def test_at_density_keeps_exactly_the_largest_logits() -> None:
    mask = random_mask(4)
    assert mask.logits is not None
    chosen = mask.at_density(0.25)
    logits = torch.cat([tensor.reshape(-1) for tensor in mask.logits.values()])
    assert chosen.n_kept == 5
    assert torch.equal(flat(chosen), logits >= logits.sort(descending=True).values[4])


def test_restriction_leaves_only_the_parameters_that_fit() -> None:
    mask = random_mask(5).restrict("second.*")
    assert mask.names == ("second.weight", "second.bias")
    with pytest.raises(MaskError, match=r"'third\.\*' fits no parameter"):
        mask.restrict("third.*")


def test_masks_of_different_models_do_not_combine() -> None:
    with pytest.raises(MaskError, match=r"only one of them has first\.weight"):
        _ = random_mask(0) & Mask({"third": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(MaskError, match="differ in the shape"):
        iou(Mask({"a": torch.ones(2, dtype=torch.bool)}), Mask({"a": torch.ones(3, dtype=torch.bool)}))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "at least one"),
        ({"a": torch.ones(2)}, "boolean tensor, got torch.float32"),
        ({"a": [True]}, "boolean tensor, got list"),
    ],
)
def test_what_is_no_mask_is_refused(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        Mask(mapping)  # type: ignore[arg-type]


def test_a_saved_mask_comes_back_with_everything(tmp_path: Path) -> None:
    mask = random_mask(6)
    back = Mask.load(mask.save(tmp_path / "mask.safetensors"))
    assert back == mask
    assert back.names == mask.names
    assert back.details == mask.details
    assert mask.logits is not None
    assert back.logits is not None
    assert all(torch.equal(back.logits[name], mask.logits[name]) for name in mask.names)
    assert back.strata is not None
    assert mask.strata is not None
    assert all(torch.equal(back.strata[name], mask.strata[name]) for name in mask.names)
    assert pickle.loads(pickle.dumps(mask)) == mask


def test_the_same_mask_is_saved_as_the_same_bytes(tmp_path: Path) -> None:
    one, two = (random_mask(7).save(tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_mask_file_can_be_read_without_modscope(tmp_path: Path) -> None:
    mask = random_mask(8)
    path = mask.save(tmp_path / "mask.safetensors")
    tensors = load_file(path)
    assert torch.equal(tensors["kept/first.weight"], mask["first.weight"])
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["modscope"])
    assert (header["format"], header["version"]) == ("modscope.mask", 1)


def rewritten(path: Path, change: dict[str, object], flip: bool = False) -> None:
    tensors = load_file(path)
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["modscope"])
    if flip:
        tensors["kept/first.weight"][0, 0] ^= True
    save_file(tensors, path, metadata={"modscope": json.dumps({**header, **change})})


def test_damaged_changed_and_newer_files_are_refused(tmp_path: Path) -> None:
    path = random_mask(9).save(tmp_path / "mask.safetensors")
    whole = path.read_bytes()
    with pytest.raises(RecordError, match="no mask file at"):
        Mask.load(tmp_path / "missing")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match="cannot be read"):
        Mask.load(path)
    path.write_bytes(whole)
    rewritten(path, {}, flip=True)
    with pytest.raises(RecordError, match="checksum differs"):
        Mask.load(path)
    path.write_bytes(whole)
    rewritten(path, {"details": {"task": "another"}})
    with pytest.raises(RecordError, match="checksum differs"):
        Mask.load(path)
    path.write_bytes(whole)
    rewritten(path, {"version": 2})
    with pytest.raises(RecordError, match="format version 2"):
        Mask.load(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(RecordError, match="no mask file"):
        Mask.load(path)


def test_a_mask_set_gives_the_first_seed_and_all_seeds() -> None:
    masks = MaskSet({"add": [random_mask(0), random_mask(1)], "mul": random_mask(2)})
    assert masks["add"] == random_mask(0)
    assert masks.seeds("add")[1] == random_mask(1)
    assert list(masks) == ["add", "mul"]
    assert masks.n_seeds == 1
    with pytest.raises(MaskError, match="no masks of task 'sub'"):
        masks["sub"]
    with pytest.raises(MaskError, match="needs a Mask"):
        MaskSet({"add": []})


@pytest.mark.parametrize("nothing", [{}, None, []])
def test_a_mask_set_without_tasks_is_refused(nothing: object) -> None:
    with pytest.raises(MaskError, match="at least one task name -> Mask"):
        MaskSet(nothing)  # type: ignore[arg-type]


def test_a_mask_set_file_without_tasks_is_damaged(tmp_path: Path) -> None:
    folder = MaskSet({"add": random_mask(0)}).save_pretrained(tmp_path / "masks")
    (folder / "masks.json").write_text('{"format":"modscope.mask_set","tasks":[],"version":1}')
    with pytest.raises(RecordError, match=r"lists no masks"):
        MaskSet.from_pretrained(folder)
    (folder / "masks.json").write_text('{"format":"modscope.mask_set","tasks":[],"version":7}')
    with pytest.raises(RecordError, match="format version 7"):
        MaskSet.from_pretrained(folder)


def test_one_of_many_cut_off_files_of_a_set_is_named(tmp_path: Path) -> None:
    folder = MaskSet({"add": random_mask(0), "mul": random_mask(1)}).save_pretrained(tmp_path / "masks")
    path = folder / "mask_1_0.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RecordError, match=r"mask_1_0\.safetensors cannot be read"):
        MaskSet.from_pretrained(folder)
    path.unlink()
    with pytest.raises(RecordError, match="no mask file at"):
        MaskSet.from_pretrained(folder)


def test_a_saved_mask_set_comes_back_equal(tmp_path: Path) -> None:
    masks = MaskSet({"a/b: c": [random_mask(0), random_mask(1)], "mul": [random_mask(2), random_mask(3)]})
    folder = masks.save_pretrained(tmp_path / "masks")
    assert MaskSet.from_pretrained(folder) == masks
    random_mask(5).save(folder / "mask_0_0.safetensors")
    with pytest.raises(RecordError, match=r"not the file that masks\.json lists"):
        MaskSet.from_pretrained(folder)
    (folder / "masks.json").write_text("{")
    with pytest.raises(RecordError, match="damaged"):
        MaskSet.from_pretrained(folder)
