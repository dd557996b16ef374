"""How the stick detector learns: drawn sticks, augmented crops, targets, decoding, and a run that is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the training extra: torch")
pytest.importorskip("efficientnet_lite_pytorch", reason="needs the training extra: efficientnet_lite_pytorch")

import torch
from msgspec.structs import replace

from engine.errors import UserError
from stages.skeleton import GRIP, TIP
from training import app
from training.backbone import FROZEN_BLOCKS
from training.stick import command, evaluate, fit
from training.stick.augment import Warp, noisy_body, random_warp
from training.stick.cache import load_samples, save_samples
from training.stick.composite import add_distractors, add_stick
from training.stick.data import CACHE_MARGIN, CACHE_PX, Loader, Samples, make_sample, read_rows, target_of
from training.stick.network import MAP_SIZE, Maps, StickNet
from training.stick.yolo import label_line

SHORT = fit.FitSettings(epochs=2, samples_per_epoch=8, batch=4, threads=1)


def someone() -> np.ndarray:
    """Keypoints (19, 3) of a person in the middle of a cached crop, without a stick."""
    keypoints = np.full((19, 3), np.nan, np.float32)
    keypoints[:, 2] = 0
    places = {0: (0, -85), 5: (22, -60), 6: (-22, -60), 7: (40, -35), 8: (-40, -35), 9: (55, -55), 10: (-55, -55)}
    for joint, (x, y) in (places | {11: (12, 0), 12: (-12, 0), 13: (14, 40), 14: (-14, 40)}).items():
        keypoints[joint] = (CACHE_PX / 2 + x, CACHE_PX / 2 + y, 0.9)
    return keypoints


@pytest.fixture(scope="module")
def net() -> StickNet:
    torch.manual_seed(0)
    return StickNet(pretrained=False).eval()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    images = [np.full((CACHE_PX, CACHE_PX, 3), 40 * k, np.uint8) for k in range(4)]
    save_samples(tmp_path, "clips", images, [someone()] * 4, [someone()[:17]] * 4, ["a.mp4 1"])
    return tmp_path


def test_a_stick_is_drawn_between_the_ends_that_are_returned() -> None:
    image = np.full((CACHE_PX, CACHE_PX, 3), 60, np.uint8)
    stick = add_stick(image, someone(), np.random.default_rng(4))
    assert stick is not None
    changed = (image != 60).any(axis=2)
    middle = (0.4 * stick.grip + 0.6 * stick.tip).astype(int)
    assert changed[middle[1] - 2 : middle[1] + 3, middle[0] - 2 : middle[0] + 3].any()
    beyond = (stick.tip + 0.2 * (stick.tip - stick.grip)).astype(int)
    assert not changed[beyond[1] - 1 : beyond[1] + 2, beyond[0] - 1 : beyond[0] + 2].any()


def test_no_stick_is_drawn_when_no_hand_is_known() -> None:
    keypoints = someone()
    keypoints[[9, 10], 2] = 0
    image = np.zeros((CACHE_PX, CACHE_PX, 3), np.uint8)
    assert add_stick(image, keypoints, np.random.default_rng(0)) is None
    assert not image.any()


def test_distractors_stay_behind_the_person() -> None:
    keypoints, rng = someone(), np.random.default_rng(1)
    image = np.full((CACHE_PX, CACHE_PX, 3), 60, np.uint8)
    for _ in range(5):
        add_distractors(image, keypoints, None, rng)
    assert (image != 60).any()
    chest = CACHE_PX // 2
    assert (image[chest - 40 : chest - 10, chest - 8 : chest + 8] == 60).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_points_and_pixels_are_warped_alike(mirrored: bool) -> None:
    warp = Warp((180.0, 150.0), 200.0, 0.4, mirrored)
    image = np.zeros((CACHE_PX, CACHE_PX, 3), np.uint8)
    image[118:123, 208:213] = 255
    rows, columns = np.nonzero(warp.apply(image, 224)[..., 0] > 100)
    expected = warp.points(np.array([[210.5, 120.5]]))[0] * 224
    assert np.allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=1.0)


def test_an_end_outside_the_crop_is_not_learned_and_presence_not_counted() -> None:
    keypoints = someone()
    keypoints[GRIP], keypoints[TIP] = (CACHE_PX / 2, CACHE_PX / 2, 1), (CACHE_PX - 1, CACHE_PX / 2, 1)
    target = target_of(keypoints, Warp.plain(CACHE_PX, CACHE_PX / CACHE_MARGIN))
    assert (target[4], target[5], target[6]) == (1, 0, -1)


def test_a_stick_that_points_at_the_lens_is_learned_but_its_presence_is_not() -> None:
    keypoints = someone()
    keypoints[GRIP], keypoints[TIP] = (180, 180, 1), (183, 182, 1)
    target = target_of(keypoints, Warp.plain(CACHE_PX, CACHE_PX / CACHE_MARGIN))
    assert (target[4], target[5], target[6]) == (1, 1, -1)


def test_the_decoder_returns_the_ends_that_the_targets_describe(net: StickNet) -> None:
    targets = torch.tensor([[0.31, 0.42, 0.612, 0.223, 1, 1, 1], [0.7, 0.7, 0.5, 0.9, 1, 1, 1]])
    heat, _, ends = fit.target_maps(targets)
    decoded = net.decode(Maps(torch.log(heat + 1e-9), ends, torch.zeros(2, 64, 14, 14)))
    assert torch.allclose(decoded.points[..., :2].flatten(1), targets[:, :4], atol=0.003)
    assert (decoded.points[..., 2] > 0.9).all()


def test_of_two_possible_tips_the_one_where_the_grip_points_is_taken(net: StickNet) -> None:
    true, other = (torch.tensor([[0.3, 0.4, x, 0.4, 1, 1, 1]]) for x in (0.6, 0.1))
    heat, _, ends = fit.target_maps(true)
    heat[:, 1] = 0.4 * heat[:, 1] + 0.6 * fit.target_maps(other)[0][:, 1]
    decoded = net.decode(Maps(torch.log(heat + 1e-9), ends, torch.zeros(1, 64, 14, 14)))
    assert abs(float(decoded.points[0, 1, 0]) - 0.6) < 1 / MAP_SIZE


def test_the_same_seed_gives_the_same_batches_and_another_epoch_gives_others(cache: Path) -> None:
    first, again, other = (
        next(iter(Loader(load_samples(cache, "clips"), 4, 3, 0.5).epoch(epoch, 4))) for epoch in (0, 0, 1)
    )
    assert np.array_equal(first.images, again.images) and np.array_equal(first.targets, again.targets)
    assert not np.array_equal(first.images, other.images)


def save_people(cache: Path) -> None:
    """Crops of six people with sticks, as of renders."""
    keypoints, images = [], []
    for k in range(6):
        image, person = np.full((CACHE_PX, CACHE_PX, 3), 40 * k, np.uint8), someone()
        stick = add_stick(image, person, np.random.default_rng(k))
        assert stick is not None
        person[GRIP], person[TIP] = (*stick.grip, 1), (*stick.tip, 1)
        images.append(image)
        keypoints.append(person)
    save_samples(cache, "train", images, keypoints, [person[:17] for person in keypoints], ["a.jpg 1"])


def test_what_a_network_finds_hard_is_drawn_twice_as_often(net: StickNet, tmp_path: Path) -> None:
    save_people(tmp_path)
    shards = load_samples(tmp_path, "train")
    hard = fit.hardest(net, shards[0])
    assert hard.sum() == 2
    loader = Loader(shards, 4, 3, 0.5, [hard])
    assert sorted(index for _, index in loader._pictures) == sorted([*range(6), *np.flatnonzero(hard).tolist()])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_warped_body_has_its_left_wrist_where_the_picture_shows_it(mirrored: bool) -> None:
    warp, body = Warp((180.0, 150.0), 200.0, 0.4, mirrored), someone()[:17]
    body[10, 2] = 0  # the right wrist is not known
    told = warp.body(body)
    left, right = (10, 9) if mirrored else (9, 10)
    assert np.allclose(told[left, :2], warp.points(body[9:10, :2])[0], atol=1e-6)
    assert (told[right] == 0).all() and np.isfinite(told).all()


def test_each_joint_map_is_highest_where_its_joint_is(net: StickNet) -> None:
    body = torch.zeros(1, 17, 3)
    body[0, 9], body[0, 10] = torch.tensor([0.25, 0.75, 0.8]), torch.tensor([0.5, 0.1, 0.3])
    wrists, elbows, shoulders = net._joint_maps(body)[0]
    assert divmod(int(wrists.argmax()), MAP_SIZE) == (int(0.75 * MAP_SIZE) - 1, int(0.25 * MAP_SIZE) - 1)
    assert float(wrists.max()) == pytest.approx(0.8 * np.exp(-(0.5**2 + 0.5**2) / (2 * 1.5**2)), abs=1e-3)
    assert not elbows.any() and not shoulders.any()


def test_the_crop_of_a_noisy_detection_stays_near_the_person() -> None:
    keypoints, rng = someone(), np.random.default_rng(0)
    for _ in range(50):
        body = noisy_body(keypoints[:17], 60.0, rng)
        middle = random_warp(body, CACHE_PX, rng).points(keypoints[[5, 6], :2]).mean(0)
        assert (np.abs(middle - 0.5) < 0.4).all()


@contextmanager
def stopped_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training in it is stopped while it saves for the second time."""
    real_write, written = fit._write, list[str]()

    def write_then_stop(state: object, path: Path) -> None:
        if len(written) == 2:  # checkpoint and weights of the first epoch are on the disk
            raise KeyboardInterrupt
        written.append(path.name)
        real_write(state, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "_write", write_then_stop)
        yield


def test_a_run_stopped_while_saving_goes_on_from_the_last_whole_epoch(
    net: StickNet, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And knows still what the weights that it began with found hard."""
    save_people(cache)
    weights = tmp_path / "begun.pt"
    torch.save(net.state_dict(), weights)
    with stopped_after_an_epoch(monkeypatch):
        fit.fit(cache, tmp_path / "run", SHORT, init=weights)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    before = torch.load(checkpoint, weights_only=True)
    assert before["epoch"] == 1 and [int(mask.sum()) for mask in before["hard"]] == [2, 0]
    fit.fit(cache, tmp_path / "run", SHORT, resume=True)
    after = torch.load(checkpoint, weights_only=True)
    assert after["epoch"] == 2 and torch.equal(after["hard"][0], before["hard"][0])


def test_a_new_training_in_the_place_of_a_finished_one_is_not_taken_for_it(
    net: StickNet, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, run = tmp_path / "begun.pt", tmp_path / "run"
    torch.save(net.state_dict(), weights)
    fit.fit(cache, run, SHORT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "_write", interrupt)  # before its first epoch is kept
        fit.fit(cache, run, SHORT, init=weights)
    with pytest.raises(UserError, match="does not exist; leave out --resume"):
        fit.fit(cache, run, SHORT, resume=True)
    assert not (run / "weights.pt").exists()


def test_a_training_is_not_resumed_with_other_weights_to_begin_with(stopped: Path, cache: Path, net: StickNet) -> None:
    other = stopped.parent / "other.pt"
    torch.save(net.state_dict(), other)
    with pytest.raises(UserError, match="was begun with begun.pt; say the same --init"):
        fit.fit(cache, stopped, SHORT, resume=True, init=other)
    fit.fit(cache, stopped, SHORT, resume=True)
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["init"] == "begun.pt"


def interrupt(state: object, path: Path) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped(net: StickNet, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a training of two epochs that was stopped in the second; its cache is that of `cache`."""
    weights = tmp_path / "begun.pt"
    torch.save(net.state_dict(), weights)
    with stopped_after_an_epoch(monkeypatch):
        fit.fit(cache, tmp_path / "heatmap", SHORT, init=weights)
    return tmp_path / "heatmap"


def test_every_second_crop_holds_what_one_hand_reaches_mostly_the_one_with_the_stick() -> None:
    """As the program looks closer at the hand that holds it."""
    keypoints = someone()
    keypoints[GRIP], keypoints[TIP] = keypoints[9], keypoints[9] + (0, -75, 0)
    shard = Samples(np.zeros((1, CACHE_PX, CACHE_PX, 3), np.uint8), keypoints[None], keypoints[None, :17], False)
    looks, inside = [], 0
    for seed in range(200):
        _, body, target = make_sample(shard, 0, np.random.default_rng(seed), augment=False, hands=True)
        left, right = np.abs(body[[9, 10], 0] - 0.5)
        looks.append("both" if np.isclose(left, right) else "left" if left < right else "right")
        inside += bool(target[4:6].all())
    assert 80 < looks.count("both") < 120 and 60 < looks.count("left") < 100 and 10 < looks.count("right") < 35
    assert inside >= 200 - looks.count("right")


@pytest.mark.parametrize("old", [False, True])
def test_the_same_command_does_not_overwrite_a_training_that_was_stopped(
    stopped: Path, old: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if old:
        forget_facts(stopped)
    (stopped.parent / "a.mp4").write_bytes(b"video")
    before = (stopped / "checkpoint.pt").read_bytes()
    words = ["detector", "--clips", str(stopped.parent), "--work", str(stopped.parent)]
    assert app.main(words) == 2
    assert f"{stopped} holds a training that was stopped after epoch 1; add --resume" in capsys.readouterr().err
    assert (stopped / "checkpoint.pt").read_bytes() == before and not (stopped / "begun.json").exists()


def forget_facts(run: Path) -> None:
    """As a checkpoint of before."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save({key: state[key] for key in state.keys() - {"settings", "sources", "minutes"}}, run / "checkpoint.pt")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (replace(SHORT, seed=8), "was begun with seed 7; say the same"),
        (replace(SHORT, epochs=4, samples_per_epoch=4), "was begun with epochs 2, samples_per_epoch 8; say the same"),
    ],
)
def test_a_training_is_not_resumed_with_other_settings(
    settings: fit.FitSettings, sentence: str, stopped: Path, cache: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        fit.fit(cache, stopped, settings, resume=True)


def test_a_training_is_not_resumed_with_other_pictures(stopped: Path, cache: Path) -> None:
    save_people(cache)
    with pytest.raises(UserError, match="has changed since .*; give the same --table"):
        fit.fit(cache, stopped, SHORT, resume=True)


def test_the_minutes_of_all_calls_are_counted(stopped: Path, cache: Path) -> None:
    state = torch.load(stopped / "checkpoint.pt", weights_only=True)
    assert state["minutes"] > 0
    torch.save(state | {"minutes": 50.0}, stopped / "checkpoint.pt")
    fit.fit(cache, stopped, replace(SHORT, threads=2), resume=True)
    assert 50 < fit.minutes_before(stopped) < 60
    fit.refuse_unfinished(stopped)  # it is finished


def test_a_checkpoint_of_before_may_be_resumed(stopped: Path, cache: Path) -> None:
    forget_facts(stopped)
    fit.fit(cache, stopped, SHORT, resume=True)
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["epoch"] == 2


def test_every_tensor_of_the_tuned_blocks_learns_and_none_of_the_frozen_ones(
    net: StickNet, cache: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "begun.pt"
    torch.save(net.state_dict(), weights)
    settings = fit.FitSettings(epochs=1, samples_per_epoch=8, batch=4, threads=1, averaging=0.0)
    learnt = torch.load(fit.fit(cache, tmp_path / "run", settings, init=weights), weights_only=True)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(learnt[name], value)}
    names = [f"backbone.{name}" for name, _ in net.backbone.named_parameters()]
    tuned = {name for name in names if any(f"._blocks.{k}." in name for k in range(FROZEN_BLOCKS, 11))}
    assert changed & set(names) == tuned and len(tuned) == 42


def test_resuming_without_a_checkpoint_says_what_to_do(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --resume"):
        fit.fit(cache, tmp_path / "nowhere", fit.FitSettings(), resume=True)


@pytest.mark.parametrize("content", ["other", "nothing", "missing"])
def test_weights_of_another_network_are_refused(cache: Path, tmp_path: Path, content: str) -> None:
    weights = tmp_path / "weights.pt"
    if content == "other":
        torch.save({"lateral4.weight": torch.zeros(1)}, weights)
    elif content == "nothing":
        weights.write_bytes(b"")
    with pytest.raises(UserError, match=r"weights\.pt"):
        fit.fit(cache, tmp_path / "run", fit.FitSettings(threads=1), init=weights)


def test_a_cache_of_an_earlier_version_is_to_be_deleted(cache: Path) -> None:
    (meta,) = cache.glob("clips_*.npz")
    np.savez(meta, keypoints=np.load(meta)["keypoints"])
    with pytest.raises(UserError, match="delete it"):
        load_samples(cache, "clips")


def test_a_missing_table_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="arnis-train synth"):
        read_rows(tmp_path / "table.csv")


def test_a_yolo_label_holds_box_and_both_ends() -> None:
    line = label_line(np.array([0.5, 0.5, 0.7, 0.3, 1, 1, 1], np.float32))
    assert [float(v) for v in line.split()] == pytest.approx(
        [0, 0.6, 0.4, 0.36, 0.36, 0.5, 0.5, 2, 0.7, 0.3, 2], abs=1e-4
    )
    assert label_line(np.zeros(7, np.float32)) == ""


def test_the_threshold_keeps_pictures_without_a_stick_below_it() -> None:
    row = None
    seen = [0.1] * 90 + [0.7] * 10
    empty = [evaluate.Outcome(row, evaluate.Answer(np.zeros((2, 3)), p), False, 0, 0, 0) for p in seen]  # type: ignore[arg-type]
    assert 0.7 < evaluate.choose_threshold(empty) < 0.75
    few = [evaluate.Outcome(row, evaluate.Answer(np.zeros((2, 3)), p), False, 0, 0, 0) for p in [0.1] * 66 + [0.9] * 2]  # type: ignore[arg-type]
    assert evaluate.choose_threshold(few) > 0.9, "two of 68 are more than 2 %"


def test_pictures_that_show_no_stick_are_counted_and_tell_nothing_of_sticks() -> None:
    row = None
    empty = [evaluate.Outcome(row, evaluate.Answer(np.zeros((2, 3)), p), False, 0, 0, 0) for p in (0.1, 0.9)]  # type: ignore[arg-type]
    figures = evaluate.summarise(empty, 0.5)
    assert figures == {"pictures_with_stick": 0, "pictures_without_stick": 2, "false_rate": 0.5}
    assert evaluate.aims(figures, {}) == {}


def test_a_training_of_ten_steps_runs(net: StickNet, cache: Path, tmp_path: Path) -> None:
    """The tenth of it in which the rates rise is one step."""
    weights = tmp_path / "begun.pt"
    torch.save(net.state_dict(), weights)
    settings = fit.FitSettings(epochs=1, samples_per_epoch=20, batch=2, threads=1)
    assert fit.fit(cache, tmp_path / "run", settings, init=weights).is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "10"], "--samples 10 is too few for --kind heatmap; give at least 16"),
        (["--epochs", "0"], "--epochs 0 is too few"),
        (["--size", "480"], "--size is of --kind fused alone"),
        (["--kind", "fused", "--threshold", "0.5"], "--threshold is of --kind heatmap and yolo"),
        (["--kind", "yolo", "--init", "stick_heatmap"], "leave out --init"),
    ],
)
def test_options_that_cannot_be_honoured_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["detector", "--table", str(tmp_path / "t.csv"), "--work", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_command_says_what_it_needs_to_learn_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["detector"]) == 2
    assert "give --table" in capsys.readouterr().err


def test_the_command_names_a_folder_without_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["detector", "--clips", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "holds no video" in capsys.readouterr().err


def test_videos_are_known_by_their_suffix_however_a_camera_writes_it(tmp_path: Path) -> None:
    for name in ("GOPR0001.MP4", "a.mov", "b.webm", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in command.video_files(tmp_path)] == ["GOPR0001.MP4", "a.mov", "b.webm"]
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="2 videos a, told apart by their endings alone; rename them"):
        command.video_files(tmp_path)
