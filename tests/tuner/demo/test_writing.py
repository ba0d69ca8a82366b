import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.faces import find_face
from trainables.data.layouts.contest import contest_scheme
from trainables.registry import ConfigError
from tuner.demo.drawing import FAR, SHOTS, draw_shots
from tuner.demo.people import CONTEST, PLANTED, Person, band_counts, cast_people
from tuner.demo.writing import write_people

SMALL = (24, 32)


@pytest.fixture(scope="module")
def quirky(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "quirky", people=24, eval_people=8, seed=3, size=SMALL)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "plain", people=24, seed=3, size=SMALL, quirks=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def folder_of(data: Path, quirk: str) -> Path:
    (folder,) = (data / "train" / "images").glob(f"{PLANTED[quirk]}_*")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_person_has_a_row_and_a_folder_of_seven_images(plain):
    people = rows(plain / "train" / "train.csv")
    assert list(people[0]) == ["id", "gender", "race", "age", "path"]
    assert {row["path"] for row in people} == names(plain / "train" / "images")
    for row in people:
        assert row["path"] == f"{row['id']}_{row['gender']}_{row['race']}_{row['age']}"
        assert re.fullmatch(r"\d{6}", row["id"]) and row["gender"] in ("male", "female") and 18 <= int(row["age"]) <= 60
        assert names(plain / "train" / "images" / row["path"]) == {f"{stem}.jpg" for stem in SHOTS}


def test_images_are_rgb_of_the_asked_size_and_no_two_are_alike(plain):
    files = list((plain / "train" / "images").rglob("*.jpg"))
    images = [Image.open(file) for file in files]
    assert {(image.size, image.mode) for image in images} == {(SMALL, "RGB")}
    assert len({image.tobytes() for image in images}) == len(files) == 24 * 7


def test_without_eval_people_there_is_no_eval_folder(plain):
    assert names(plain) == {"train"}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, again, other = (
        contents(write_people(tmp_path / name, people=20, eval_people=2, seed=seed, size=SMALL))
        for name, seed in (("first", 7), ("again", 7), ("other", 8))
    )
    assert first == again
    assert not set(first.values()) & {image for name, image in other.items() if name.endswith(".jpg") and "._" not in name}


@pytest.mark.parametrize("people", [1, 5, 20, 60, 300, 2700])
def test_bands_add_up_to_the_people_asked_for(people):
    assert band_counts(people).sum() == people


def test_the_contests_number_of_people_gives_the_contests_bands():
    assert band_counts(2700).tolist() == CONTEST.ravel().tolist()


def test_rare_bands_are_not_too_rare():
    assert band_counts(20).min() >= 1
    assert band_counts(60).min() >= 4
    assert band_counts(300).min() >= 8


@pytest.mark.parametrize("seed", range(20))
def test_every_cast_fills_its_bands_with_distinct_people(seed):
    people = cast_people(60, (seed,), PLANTED)
    bands = Counter(3 * person.gender + int(np.searchsorted((30, 60), person.age, side="right")) for person in people)
    assert [bands[band] for band in range(6)] == band_counts(60).tolist()
    assert len({person.folder for person in people}) == len({person.seed for person in people}) == 60


def test_a_person_older_than_sixty_is_recorded_as_sixty():
    people = cast_people(300, (0,), {})
    assert max(person.years for person in people) > 60
    assert all(person.age == min(person.years, 60) for person in people)


def test_the_eval_part_hides_who_is_who_and_lists_every_image_with_a_zero(quirky):
    info = rows(quirky / "eval" / "info.csv")
    assert list(info[0]) == ["ImageID", "ans"] and {row["ans"] for row in info} == {"0"}
    assert len(info) == 8 * 7
    assert {row["ImageID"] for row in info} == names(quirky / "eval" / "images")
    assert all(re.fullmatch(r"[0-9a-f]{40}\.jpg", row["ImageID"]) for row in info)


def test_answers_stand_in_the_order_of_the_info_and_match_the_people(quirky):
    info, answers = rows(quirky / "eval" / "info.csv"), rows(quirky / "eval" / "answers.csv")
    assert [row["ImageID"] for row in info] == [row["ImageID"] for row in answers]
    found = Counter(int(row["ans"]) for row in answers)
    expected = Counter()
    for band, people in enumerate(band_counts(8)):
        for mask in SHOTS.values():
            expected[6 * mask + band] += int(people)
    assert found == +expected


def test_answers_follow_the_cuts(tmp_path):
    whole = write_people(tmp_path / "whole", people=1, eval_people=4, seed=0, size=SMALL)
    split = write_people(tmp_path / "split", people=1, eval_people=4, seed=0, size=SMALL, cuts=(19, 40, 50, 60))
    (old, new), scheme = (rows(folder / "eval" / "answers.csv") for folder in (whole, split)), contest_scheme((19, 40, 50, 60))
    labels = scheme.split(np.array([int(row["ans"]) for row in new]))
    before = contest_scheme((30, 60)).split(np.array([int(row["ans"]) for row in old]))
    assert [row["ImageID"] for row in new] == [row["ImageID"] for row in old]
    assert (labels[:, :2] == before[:, :2]).all()
    assert ((labels[:, 2] == 4) == (before[:, 2] == 2)).all()


def test_one_person_mixes_extensions(quirky):
    assert names(folder_of(quirky, "extensions")) == {"mask1.jpeg", "mask2.png", *(f"{stem}.jpg" for stem in list(SHOTS)[2:])}


def test_junk_of_another_system_lies_about(quirky):
    folder = folder_of(quirky, "junk")
    assert "._mask1.jpg" in names(folder)
    assert (folder.parent / f"._{folder.name}").is_dir()
    with pytest.raises(OSError):
        Image.open(folder / "._mask1.jpg")


def test_one_id_has_a_suffix(quirky):
    assert folder_of(quirky, "suffix").name.startswith("001498-1_")


def test_one_id_belongs_to_two_people_of_different_faces(quirky):
    twins = [row for row in rows(quirky / "train" / "train.csv") if row["id"] == PLANTED["twice"]]
    assert len(twins) == 2 and twins[0]["gender"] != twins[1]["gender"]
    assert all(names(quirky / "train" / "images" / row["path"]) == {f"{stem}.jpg" for stem in SHOTS} for row in twins)


def test_one_person_lacks_a_shot(quirky):
    assert names(folder_of(quirky, "missing")) == {f"{stem}.jpg" for stem in SHOTS if stem != "mask3"}


def test_one_person_has_images_that_are_not_rgb(quirky):
    folder = folder_of(quirky, "modes")
    assert [Image.open(folder / f"mask{number}.png").mode for number in (1, 2, 3)] == ["RGBA", "P", "L"]


def test_one_image_lacks_its_end(quirky):
    with pytest.raises(OSError, match="truncated"):
        Image.open(folder_of(quirky, "truncated") / "normal.jpg").load()


def test_what_is_planted_is_all_that_differs_from_plain_people(quirky):
    odd = set(PLANTED.values())
    for row in rows(quirky / "train" / "train.csv"):
        if row["id"] not in odd:
            assert names(quirky / "train" / "images" / row["path"]) == {f"{stem}.jpg" for stem in SHOTS}


def test_few_people_have_no_quirks(tmp_path):
    data = write_people(tmp_path / "few", people=6, seed=0, size=SMALL)
    assert not {row["id"] for row in rows(data / "train" / "train.csv")} & set(PLANTED.values())


def mouth_and_chin(image: Image.Image) -> np.ndarray:
    width, height = image.size
    return np.asarray(image.crop((width * 3 // 8, height * 11 // 20, width * 5 // 8, height * 7 // 10)), float)


@pytest.mark.parametrize("gender", [0, 1])
def test_a_worn_mask_hides_the_mouth(gender):
    difference = []
    for seed in range(10):
        images = dict(draw_shots(Person("000001", gender, 25, (seed,)), (96, 128)))
        means = {stem: mouth_and_chin(image).mean((0, 1)) for stem, image in images.items()}
        colours = [means[f"mask{number}"] / means[f"mask{number}"].sum() for number in range(1, 6)]
        skin = means["normal"] / means["normal"].sum()
        difference.append(np.mean([np.abs(colour - skin).sum() for colour in colours]))
    assert np.mean(difference) > 0.1


def test_hair_greys_with_the_years():
    def crown(years: int) -> float:
        images = [image for seed in range(10) for _, image in draw_shots(Person("000001", 0, years, (seed,)), (96, 128))]
        return float(np.mean([np.asarray(image.convert("L"))[26:32, 40:56].mean() for image in images]))

    assert crown(22) < crown(56) < crown(75)


def test_progress_counts_the_people_of_both_parts(tmp_path):
    seen = []
    write_people(tmp_path / "data", people=3, eval_people=2, seed=0, size=SMALL, progress=seen.append)
    assert sum(seen) == 5


def test_an_interrupted_folder_is_absent_and_leaves_nothing_beside(tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_people(tmp_path / "data", people=3, seed=0, size=SMALL, progress=stop)
    assert not names(tmp_path)


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    write_people(tmp_path / "data", people=1, seed=0, size=SMALL)
    before = contents(tmp_path / "data")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'data'}"):
        write_people(tmp_path / "data", people=1, seed=1, size=SMALL)
    assert contents(tmp_path / "data") == before


def test_all_mistakes_are_reported_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        write_people(tmp_path / "data", people=0, eval_people=-1, seed=0, size=(8, 32))
    assert [mistake.path for mistake in error.value.mistakes] == ["people", "eval_people", "size"]


def test_a_detector_finds_the_face_of_nearly_every_drawn_person_with_a_mask_and_without():
    found = {mask: [] for mask in set(SHOTS.values())}
    for person in cast_people(6, (1, 0), {}):
        for stem, image in draw_shots(person, (144, 192)):
            found[SHOTS[stem]].append(find_face(image) is not None)
    assert np.mean(sum(found.values(), [])) >= 0.8 and all(np.mean(mask) >= 0.6 for mask in found.values()), found


def test_a_far_face_is_small_and_lies_elsewhere_in_every_image():
    boxes = [find_face(image) for _, image in draw_shots(Person("000001", 1, 25, (3,)), (192, 256), FAR)]
    boxes = [box for box in boxes if box]
    assert max(right - left for left, _, right, _ in boxes) < 192 // 3
    assert np.ptp([left + right for left, _, right, _ in boxes]) > 192 // 4
