"""The generated people: the layout, the folders, what can be learnt from them, the command."""

import dataclasses
import threading

import numpy as np
import pytest
from PIL import Image

from dml_tf import reid
from dml_tf.data.generated import bodies, pedestrians, people
from dml_tf.data.generated.__main__ import main
from dml_tf.data.sources import market1501_tree as tree
from dml_tf.data.sources.market1501 import load_market1501

SIZES = pedestrians.Sizes(train_identities=3, test_identities=12, distractors=9, junk=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pedestrians.ensure(tmp_path_factory.mktemp("data") / "pedestrians", SIZES)


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_loader_of_market_1501_reads_it_without_a_warning(folder, recwarn):
    data = load_market1501(folder, image_size=(128, 64), published=None)
    assert not [w for w in recwarn if "dml_tf" in w.filename]
    assert len(data.class_pids) == 3
    assert len(data.query) == 2 * 12
    assert len(data.multi_query) == 4 * len(data.query)
    assert np.count_nonzero(data.gallery.pids == reid.DISTRACTOR) == 9
    assert np.count_nonzero(data.gallery.pids == reid.JUNK) == 7
    assert not set(data.class_pids) & set(data.query.pids)
    assert set(data.query.pids) == set(data.gallery.pids) - {reid.DISTRACTOR, reid.JUNK}


def test_every_picture_has_market_1501_s_size_and_a_name_of_its_own(folder):
    names = [path.name for path in folder.rglob("*.jpg")]
    in_two_folders = {path.name for path in (folder / tree.QUERY).iterdir()}
    assert len(names) == len(set(names)) + len(in_two_folders)
    assert in_two_folders < {path.name for path in (folder / tree.MULTI_QUERY).iterdir()}
    for path in list(folder.rglob("*.jpg"))[::10]:
        with Image.open(path) as picture:
            assert (picture.size, picture.mode, picture.format) == ((64, 128), "RGB", "JPEG")


def test_identity_can_be_learnt_but_colours_alone_do_not_give_it_away(folder):
    data = load_market1501(folder, image_size=(16, 4), published=None)

    def bands(images, camids):  # 16 bands' colours, less the camera's own
        means = images.images.mean(axis=2).reshape(len(images), -1)
        return np.stack(
            [x - means[camids == c].mean(0) for x, c in zip(means, camids, strict=True)]
        )

    def mean_average_precision(feature):
        q, g = data.query, data.gallery
        features = feature(q, q.camids), feature(g, g.camids)
        result = reid.evaluate(features[0], q.pids, q.camids, features[1], g.pids, g.camids)
        assert result["left_out"] == 0
        return result["mAP"]

    rng = np.random.default_rng(0)
    chance = mean_average_precision(lambda images, _: rng.standard_normal((len(images), 48)))
    assert 2 * chance < mean_average_precision(bands) < 0.6


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path):
    sizes = pedestrians.Sizes(train_identities=1, test_identities=1, distractors=1, junk=1)
    for name in ("a", "b"):
        pedestrians.write(tmp_path / name, sizes)
    pedestrians.write(tmp_path / "c", dataclasses.replace(sizes, seed=1))
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() != c.keys()


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    generate = pedestrians._generate

    def interrupted(sizes):
        for number, picture in enumerate(generate(sizes)):
            if number == 5:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(pedestrians, "_generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pedestrians.write(tmp_path / "data", SIZES)
    assert not list(tmp_path.iterdir())


def test_two_processes_at_the_same_time_leave_one_whole_tree(tmp_path, folder):
    both_began = threading.Barrier(2)

    def run(failures):
        both_began.wait()
        try:
            pedestrians.ensure(tmp_path / "data", SIZES)
        except Exception as error:
            failures.append(error)

    failures = []
    threads = [threading.Thread(target=run, args=(failures,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert content(tmp_path / "data") == content(folder)


def test_an_existing_data_set_is_kept_and_other_sizes_are_refused(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert pedestrians.ensure(folder, SIZES) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(FileExistsError, match="other sizes: remove it"):
        pedestrians.ensure(folder, dataclasses.replace(SIZES, seed=3))


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("draft")
    for function in (pedestrians.write, pedestrians.ensure):
        with pytest.raises(FileExistsError, match="is not empty"):
            function(tmp_path, SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_writes_and_prints_the_counts(tmp_path, capsys):
    dest, few = str(tmp_path / "x"), ["--train_identities=1", "--test_identities=1", "--queries=1"]
    assert main(["pedestrians", dest, *few, "--distractors=0", "--junk=2", "--seed=4"]) == 0
    printed = capsys.readouterr().out
    assert "1 in query" in printed and "4 in gt_bbox" in printed
    assert main(["pedestrians", dest, *few]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["pedestrians", dest + "2", "--queries=0"]) == 2
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"junk": -1}, {"seed": -1}, {"train_identities": 0}, {"test_identities": 9999}]
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Sizes\(.*: "):
        pedestrians.Sizes(**wrong)


def test_any_two_people_differ_in_two_visible_attributes():
    crowd = people.random_people(60, np.random.default_rng(0))
    looks = [people.appearance(person) for person in crowd]
    for i, look in enumerate(looks):
        for other in looks[:i]:
            assert sum(a != b for a, b in zip(look, other, strict=True)) >= 2
    families = [crowd[i : i + 4] for i in range(0, 60, 4)]
    for first, *others in families:
        for other in others:  # four attributes were drawn again
            assert sum(getattr(first, n) != getattr(other, n) for n in vars(first)) == 4


def drawn(person):
    """The person from all sides."""
    views = []
    for yaw in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        canvas = np.full((128, 64, 3), 0.5, np.float32)
        pose = bodies.Pose(yaw, 1.0, 0.4, x=32, top=8, height=112, elevation=0.2)
        bodies.draw(canvas, person, pose)
        views.append(canvas)
    return np.stack(views)


def test_exactly_the_visible_attributes_can_be_seen():
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(12):
        person = people.random_person(rng)
        before = drawn(person)
        for name in vars(person):
            value = people._choose(rng, name, getattr(person, name))
            other = dataclasses.replace(person, **{name: value})
            same_look = people.appearance(person) == people.appearance(other)
            assert np.array_equal(drawn(other), before) == same_look, (person, name, value)
            hidden += same_look
    assert hidden > 5
