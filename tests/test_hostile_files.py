"""Run files and feature caches from strangers: sealed, and made to read other files, to hang or to fill memory.

Whatever they hold, readers refuse them in one line or return the right values, soon, and nothing of other files.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5g, h5p, h5s, h5t
from stored_files import KINDS

from transferlens.features.cache import cached_clips
from transferlens.store.run import load_run
from transferlens.util.errors import CheckpointError, DataError, MachineError
from transferlens.util.hdf5 import MOST_ATTRIBUTES, MOST_MEMBERS

SECRET = "the secret of another file"
NUMBER = 1234.5
MANY = 2**40
# Seconds that a reader may take.
MOST = 10


class Outside:
    """What is beside a hostile file: secrets, and a pipe to which nobody writes."""

    def __init__(self, folder):
        self.text, self.h5, self.pipe = (str(folder / name) for name in ("secret.txt", "secret.h5", "pipe"))
        Path(self.text).write_text(SECRET * 100)
        with h5py.File(self.h5, "w") as file:
            file["texts"], file["numbers"] = [SECRET] * 4, np.full((4, 2), NUMBER)
            file.create_group("group").attrs["schema"] = SECRET
        os.mkfifo(self.pipe)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    return Outside(tmp_path_factory.mktemp("outside"))


@functools.cache
def whole(kind, folder):
    """The bytes of a file that nobody has changed, and what is read of it."""
    path = folder / f"{kind}.h5"
    write, readers, _ = KINDS[kind]
    write(path)
    return path.read_bytes(), [reader(path) for reader in readers]


@pytest.fixture
def expected(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return lambda kind: whole(kind, folder)


@pytest.fixture
def outcomes():
    """What each reader of a kind returns for a file, or None if it refuses it as it should."""

    def read(kind, path):
        returned = []
        for reader in KINDS[kind][1]:
            started = time.monotonic()
            try:
                returned.append(reader(path))
                message = ""
            except (CheckpointError, DataError) as error:
                assert not isinstance(error, MachineError), error
                returned.append(None)
                message = str(error)
                assert path.name in message
                assert message.isprintable()
            assert time.monotonic() - started < MOST
            assert SECRET not in f"{returned} {message}"
            assert str(NUMBER) not in f"{returned} {message}"
        return returned

    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)  # HDF5 would not return to Python
    yield read
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def changed(tmp_path, expected):
    """Write a file, change it through h5py or its bytes, and seal it."""

    def make(kind, *, by=None, raw=None):
        path = tmp_path / "hostile.h5"
        path.write_bytes(expected(kind)[0])
        if by:
            with h5py.File(path, "r+") as file:
                by(file)
        if raw:
            content = path.read_bytes()
            path.write_bytes(raw(content))
        KINDS[kind][2].write(path)
        return path

    return make


def like(file, name):
    """Shape, type and values of a data set, or what stands for those of a group."""
    item = file[name]
    if isinstance(item, h5py.Group):
        return (4, 2), np.dtype("f4"), np.zeros((4, 2), "f4")
    return item.shape, item.dtype, item[()]


def external(target):
    """A data set that is stored in another file."""

    def make(file, name, outside):
        shape, dtype, _ = like(file, name)
        del file[name]
        places = [(getattr(outside, target), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, shape, "S26" if dtype.kind == "O" else dtype, external=places)

    return make


def virtual(target, shape=None, maxshape=None):
    """A data set that is composed of those of another file."""

    def make(file, name, outside):
        old, dtype, _ = like(file, name)
        layout = h5py.VirtualLayout(shape or old, dtype, maxshape)
        source = "texts" if dtype.kind == "O" else "numbers"
        file_name = "." if target == "." else getattr(outside, target)
        layout[...] = h5py.VirtualSource(file_name, source, shape or old, dtype, maxshape)
        del file[name]
        file.create_virtual_dataset(name, layout)

    return make


def link(value):
    """A link, or what h5py makes of a value."""

    def make(file, name, outside):
        new = value(outside, file, name)
        del file[name]
        file[name] = new

    return make


def data(**options):
    """A data set as h5py makes one; with `data=...` of the old values."""

    def make(file, name, outside):
        old = like(file, name)[2]
        del file[name]
        file.create_dataset(name, **{key: old if value is ... else value for key, value in options.items()})

    return make


def low_level(kind, shape, *prepare):
    """A data set that h5py would not make."""

    def make(file, name, outside):
        plist = h5p.create(h5p.DATASET_CREATE)
        for setting, *given in prepare:
            getattr(plist, setting)(*given)
        del file[name]
        space = h5s.create_simple(shape, (h5s.UNLIMITED,) * len(shape)) if prepare else h5s.create_simple(shape)
        h5py.h5d.create(file.id, name.encode(), kind(file) if callable(kind) else kind, space, plist)

    return make


def long_text():
    kind = h5t.C_S1.copy()
    kind.set_size(2**30)
    return kind


def committed(file):
    """A type that had a name in the file."""
    file["name"] = np.dtype("f4")
    kind = file["name"].id
    del file["name"]
    return kind


def nested(file, name, outside):
    """Three thousand groups, each in the one above."""
    del file[name]
    group = file.create_group(name).id
    for _ in range(3000):
        group = h5g.create(group, b"g")


def in_circles(file, name, outside):
    del file[name]
    group = file.create_group(name)
    for i in range(30):
        group[f"again{i}"] = group


def crowd(file, name, outside):
    """More data sets than a file may have; they are one."""
    del file[name]
    group = file.create_group(name).id
    h5py.h5d.create(group, b"x", h5t.NATIVE_INT8, h5s.create_simple((1,)))
    for i in range(MOST_MEMBERS):
        group.links.create_hard(b"%d" % i, group, b"x")


INSTEAD = {
    "raw storage in a secret file": external("text"),
    "raw storage in a pipe": external("pipe"),
    "virtual, of a secret file": virtual("h5"),
    "virtual, of a pipe": virtual("pipe"),
    "virtual, of a pipe, without end": virtual("pipe", (4, 2), (None, 2)),
    "virtual, of itself": virtual("."),
    "external link to a secret": link(lambda outside, file, name: h5py.ExternalLink(outside.h5, "/texts")),
    "external link to a secret group": link(lambda outside, file, name: h5py.ExternalLink(outside.h5, "/group")),
    "external link to a pipe": link(lambda outside, file, name: h5py.ExternalLink(outside.pipe, "/texts")),
    "external link to nothing": link(lambda outside, file, name: h5py.ExternalLink("none.h5", "/none")),
    "external link to itself": link(lambda outside, file, name: h5py.ExternalLink(file.filename, name)),
    "soft link to nothing": link(lambda outside, file, name: h5py.SoftLink("/none")),
    "soft link to the root": link(lambda outside, file, name: h5py.SoftLink("/")),
    "soft link to itself": link(lambda outside, file, name: h5py.SoftLink(f"/{name}")),
    "hard link to the root": link(lambda outside, file, name: file["/"]),
    "type with a name": link(lambda outside, file, name: np.dtype("f8")),
    "nothing": lambda file, name, outside: file.pop(name),
    "groups in groups": nested,
    "groups in circles": in_circles,
    "one text": data(data="a"),
    "one number": data(data=1.5),
    "no value": data(data=h5py.Empty("f4")),
    "no rows": data(shape=(0,), dtype="f4"),
    "nine axes": data(shape=(1,) * 9, dtype="f4"),
    "compounds": data(shape=(4,), dtype=np.dtype([("a", "f4"), ("b", "S30")])),
    "lists": data(shape=(4,), dtype=h5py.vlen_dtype(np.int32)),
    "lists of texts": data(shape=(4,), dtype=h5py.vlen_dtype(h5py.string_dtype())),
    "references": data(shape=(4,), dtype=h5py.ref_dtype),
    "references to parts": data(shape=(4,), dtype=h5py.regionref_dtype),
    "bytes": data(data=np.zeros(4, "V16")),
    "times": data(data=np.zeros(4, "M8[s]").astype(h5py.opaque_dtype("M8[s]"))),
    "names of numbers": data(shape=(4,), dtype=h5py.enum_dtype({"a": 0})),
    "arrays": data(shape=(4,), dtype=np.dtype("(2,3)f4")),
    "complex numbers": data(shape=(4, 2), dtype=complex),
    "text that is not UTF-8": data(data=np.array([b"\xff\xfe"] * 4, "S2")),
    "text of ends": data(data=np.array([b"a\0b"] * 4, "S3")),
    "of a type with a name": low_level(committed, (4, 2)),
    "huge": low_level(h5t.NATIVE_FLOAT, (MANY,)),
    "huge text": low_level(long_text(), (4,)),
    "huge, in parts": low_level(h5t.NATIVE_FLOAT, (MANY,), ("set_chunk", (4,))),
    "huge parts": low_level(h5t.NATIVE_FLOAT, (4,), ("set_chunk", (2**29,))),
    "huge, zeros, compressed": data(shape=(2**36,), dtype="f4", compression="gzip", chunks=(2**20,)),
    "compressed": data(data=..., compression="gzip"),
    "shuffled": data(data=..., shuffle=True),
    "unknown filter": low_level(h5t.NATIVE_FLOAT, (4,), ("set_chunk", (4,)), ("set_filter", 32_123, 1)),
}
# The texts, numbers and groups of each kind that are replaced.
PLACES = [
    ("run", "label_names"),
    ("run", "logits_last"),
    ("run", "weights"),
    ("cache", "clip_ids"),
    ("cache", "features"),
]


@pytest.mark.parametrize("case", INSTEAD)
@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_what_stands_instead_is_refused(changed, outcomes, outside, kind, name, case):
    if case in ("compressed", "shuffled") and name in ("label_names", "clip_ids"):
        case = "huge, zeros, compressed"  # HDF5 compresses no texts of any length
    path = changed(kind, by=lambda file: INSTEAD[case](file, name, outside))
    assert None in outcomes(kind, path)


@pytest.mark.parametrize("name", ["config", "history", "weights/head.weight", "optimizer/head.weight", "history/lr"])
@pytest.mark.parametrize(
    "case", [case for case in INSTEAD if "link" in case or "in a pipe" in case or "groups" in case]
)
def test_links_are_not_followed_anywhere_in_a_run(changed, outcomes, outside, name, case):
    path = changed("run", by=lambda file: INSTEAD[case](file, name, outside))
    assert None in outcomes("run", path)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("raw storage in a pipe", r"'logits_last' is stored in another file"),
        ("virtual, of a pipe", r"'logits_last' is stored in another file"),
        ("soft link to nothing", r"'logits_last' is a link to another place"),
        ("hard link to the root", "groups are nested deeper than 16, or in a circle"),
        ("compressed", "'logits_last' is compressed or filtered"),
        ("no value", "'logits_last' is empty"),
        ("compounds", "'logits_last' holds neither numbers nor texts"),
        ("of a type with a name", "'logits_last' holds neither numbers nor texts"),
        ("huge", "'logits_last' is declared to have 4398046511104 bytes, more than its file"),
    ],
)
def test_the_reason_is_named(changed, outside, case, reason):
    path = changed("run", by=lambda file: INSTEAD[case](file, "logits_last", outside))
    with pytest.raises(CheckpointError, match=rf"damaged, cut short or of another kind \({reason}\); if it was a run"):
        load_run(path)


def attributes(*values):
    """Attributes of the root, by low-level functions."""

    def make(file, outside):
        for i, value in enumerate(values):
            file.attrs.create(f"a{i}", value() if callable(value) else value)

    return make


BESIDE = {
    "external link": lambda file, outside: file.update({"x": h5py.ExternalLink(outside.pipe, "/x")}),
    "soft link": lambda file, outside: file.update({"x": h5py.SoftLink("/none")}),
    "link of an odd name": lambda file, outside: file.update({"\x1b[2J\n\r\u202e": h5py.SoftLink("/none")}),
    "raw storage": lambda file, outside: file.create_dataset("x", (4,), "f4", external=outside.pipe),
    "type": lambda file, outside: file.update({"x": np.dtype("f4")}),
    "circle": lambda file, outside: file.update({"x": file["/"]}),
    "crowd": lambda file, outside: crowd(file, file.create_group("x").name, outside),
    "too many attributes": attributes(*range(MOST_ATTRIBUTES)),
    "list of texts": attributes(lambda: np.array(["a", "b"], object)),
    "reference": attributes(h5py.Reference),
    "compound": attributes(np.zeros(2, "f4,i4")),
    "opaque": attributes(np.zeros(2, "V9")),
    "array": lambda file, outside: file.attrs.create("a", np.zeros((2, 3), "f4"), (2, 3), np.dtype("(2,3)f4")),
    "complex": attributes(1j),
}


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_beside_is_refused(changed, outcomes, outside, kind, case):
    assert None in outcomes(kind, changed(kind, by=lambda file: BESIDE[case](file, outside)))


def many_times(file, name):
    """Texts that are one long text, at one place of the file."""
    del file[name]
    n = 2000
    file.create_dataset(name, (n,), h5py.string_dtype())[0] = "x" * 60_000
    return file[name].id.get_offset(), n


@pytest.mark.parametrize(("kind", "name"), PLACES)
def test_texts_that_are_one_place_of_the_file_many_times(changed, outcomes, kind, name):
    place = []

    def repeated(content):
        start, n = place[0]
        return content[:start] + n * content[start : start + 16] + content[start + 16 * n :]

    path = changed(kind, by=lambda file: place.append(many_times(file, name)), raw=repeated)
    with h5py.File(path) as file:
        assert len(file[name][1999]) == 60_000
    assert None in outcomes(kind, path)


@pytest.mark.parametrize(("kind", "name"), [("run", "label_names"), ("run", "clip_ids"), ("cache", "clip_ids")])
def test_texts_that_are_said_to_be_longer_than_any_of_the_file(changed, kind, name):
    """HDF5 would make room for four gigabytes, which takes seconds, before it looks for the text."""
    place = []
    path = changed(
        kind,
        by=lambda file: place.append(file[name].id.get_offset()),
        raw=lambda content: content[: place[0]] + b"\xff" * 4 + content[place[0] + 4 :],
    )
    read = load_run if kind == "run" else cached_clips
    with pytest.raises((CheckpointError, DataError), match=rf"{name}'? has texts that are not in the file"):
        read(path)


def at(place, *values):
    return lambda content: content[:place] + bytes(values) + content[place + len(values) :]


RAW = {
    "nothing": lambda content: b"",
    "text": lambda content: SECRET.encode(),
    "zeros": lambda content: bytes(4096),
    "signature": lambda content: content[:8],
    "superblock": lambda content: content[:96],
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1000],
    "something before": lambda content: bytes(512) + content,
    "version of the superblock": at(8, 9),
    "size of addresses": at(13, 255),
    "size of lengths": at(14, 0),
    "keys of a node": at(16, 255, 255, 0, 0),
    "base address": at(24, 0, 1),
    "end of the file": at(40, *[255] * 8),
    "driver": at(48, *[0] * 8),
    "root beyond the end": at(64, *[255] * 6, 0, 0),
    "root at the superblock": at(64, *[0] * 8),
    "parts of no bytes": lambda content: content.replace(b"\x24" + bytes(31), bytes(32)),
    "parts of other filters": lambda content: content.replace(b"\x24" + bytes(31), b"\x20\0\0\0\1" + bytes(27)),
    "name that is not UTF-8": lambda content: content.replace(b"clip_ids\0", b"clip_\xff\xfes\0"),
    "name with a slash": lambda content: content.replace(b"clip_ids\0", b"clip/ids\0"),
    "attribute that is not UTF-8": lambda content: content.replace(b"recipe\0", b"\xff\xfecipe\0").replace(
        b"features_key", b"\xff\xfeatures_ke"
    ),
}


@pytest.mark.parametrize("case", RAW)
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_not_what_hdf5_expects(changed, expected, outcomes, kind, case):
    returned = outcomes(kind, changed(kind, raw=RAW[case]))
    assert all(value in (None, right) for value, right in zip(returned, expected(kind)[1], strict=True))


@pytest.mark.parametrize(("case", "nbytes"), [("parts of no bytes", 0), ("parts of other filters", 32)])
def test_parts_have_their_size(changed, case, nbytes):
    with pytest.raises(CheckpointError, match=rf"'l\w+' has a part of {nbytes} bytes, not of 36"):
        load_run(changed("run", raw=RAW[case]))


@pytest.mark.parametrize("name", ["x/y", "./x"])
def test_a_name_is_not_followed_as_a_path(changed, outcomes, outside, name):
    """Of a number whose name leads to a link of another group."""
    written = "x_y"

    def make(file):
        file["weights"].create_group("x")["y"] = h5py.ExternalLink(outside.pipe, "/texts")
        file["weights"][written] = 1.5

    path = changed("run", by=make, raw=lambda content: content.replace(f"{written}\0".encode(), f"{name}\0".encode()))
    assert outcomes("run", path) == [None] * 3
    with pytest.raises(CheckpointError, match=f"'{name}' is not a valid name"):
        load_run(path)


@pytest.mark.parametrize("kind", KINDS)
def test_content_that_begins_later_is_refused(changed, outcomes, kind):
    assert set(outcomes(kind, changed(kind, raw=RAW["something before"]))) == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seal_of_something_else(changed, outcomes, kind, tmp_path):
    path = changed(kind)
    content = path.read_bytes()
    for other in (content + content, content + b"0", content[:-1] + b"0", content[:-1]):
        path.write_bytes(other)
        assert set(outcomes(kind, path)) == {None}


def copied(**options):
    """The same content in a file with other settings."""

    def make(path):
        other = path.with_name("copy.h5")
        with h5py.File(path, "r") as file, h5py.File(other, "w", **options) as new:
            for name in file:
                file.copy(name, new)
            new.attrs.update(file.attrs)
        other.replace(path)

    return make


def big_endian(path):
    with h5py.File(path, "r+") as file:
        for name in ("logits_last", "features"):
            if name in file:
                values = file[name][()]
                del file[name]
                file.create_dataset(name, data=values, dtype=">f4")


def longer(path):
    path.write_bytes(path.read_bytes() + bytes(5000))


HARMLESS = {
    "pages": copied(fs_strategy="page", fs_persist=True, fs_page_size=4096),
    "big-endian": big_endian,
    "more behind": longer,
}


@pytest.mark.parametrize("case", HARMLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_in_another_form_has_the_same_values(changed, expected, outcomes, kind, case):
    path = changed(kind)
    HARMLESS[case](path)
    KINDS[kind][2].write(path)
    assert outcomes(kind, path) == expected(kind)[1]


# Forms in which HDF5 keeps texts elsewhere, so that their lengths cannot be checked.
NEWER = {"latest format": copied(libver="latest"), "order of creation": copied(track_order=True)}


@pytest.mark.parametrize("case", NEWER)
@pytest.mark.parametrize("kind", KINDS)
def test_newer_forms_are_refused_or_have_the_same_values(changed, expected, outcomes, kind, case):
    path = changed(kind)
    NEWER[case](path)
    KINDS[kind][2].write(path)
    assert all(value in (None, right) for value, right in zip(outcomes(kind, path), expected(kind)[1], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file(outcomes, outside, kind, tmp_path):
    folder, pipe, zeros, gone = (tmp_path / name for name in ("folder.h5", "pipe.h5", "zeros.h5", "gone.h5"))
    folder.mkdir()
    os.mkfifo(pipe)
    zeros.symlink_to("/dev/zero")
    gone.symlink_to(tmp_path / "none")
    for path in (folder, pipe, zeros, gone):
        assert set(outcomes(kind, path)) == {None}


def test_a_key_is_not_a_list_of_numbers(changed, outcomes):
    path = changed("cache", by=lambda file: file.attrs.update(key=np.arange(5)))
    assert outcomes("cache", path)[0] is None
