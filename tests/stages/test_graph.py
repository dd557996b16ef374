"""The graph and the hand crop: what the classifier sees does not depend on where, how large or which-handed one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from engine.packet import FrameRef
from engine.stage import Context
from stages.graph import (
    DIRECTED_EDGES,
    EDGE_FEATURES,
    NODE_FEATURES,
    Graph,
    GraphSettings,
    build_graph,
    canonical_keypoints,
    hand_crop,
    mirror_keypoints,
    torso_length,
)
from stages.packets import ArnisPacket, GateDecision, Person, Stick
from stages.skeleton import (
    BODY_COUNT,
    GRIP,
    LEFT_ANKLE,
    LEFT_HIP,
    LEFT_SHOULDER,
    RIGHT_ELBOW,
    RIGHT_HIP,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    TIP,
)

STANDING = np.array([
    [0, -1.3], [0.07, -1.37], [-0.07, -1.37], [0.12, -1.34], [-0.14, -1.34], [0.31, -1], [-0.31, -1], [0.45, -0.6],
    [-0.45, -0.6], [0.3, -0.3], [-0.7, -0.8], [0.2, 0], [-0.2, 0], [0.3, 0.7], [-0.25, 0.7], [0.35, 1.4], [-0.3, 1.4],
    [-0.75, -0.85], [-1.5, -1.6],
])  # fmt: skip


def person(scale: float = 100.0, x: float = 320.0, y: float = 240.0) -> np.ndarray:
    """Keypoints (19, 3) in pixels of somebody with the stick in the right hand."""
    points = STANDING * scale + [x, y]
    return np.column_stack([points, np.full(len(points), 0.9)]).astype(np.float32)


def graph_of(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grip, tip = tuple(keypoints[GRIP].tolist()), tuple(keypoints[TIP].tolist())
    return build_graph(canonical_keypoints(keypoints[:BODY_COUNT], grip, tip, "right"))


def test_shapes_are_those_that_the_names_promise() -> None:
    nodes, edges, mask = graph_of(person())
    assert nodes.shape == (19, len(NODE_FEATURES)) and edges.shape == (len(DIRECTED_EDGES), len(EDGE_FEATURES))
    assert mask.tolist() == [1] * 19 and nodes.dtype == edges.dtype == mask.dtype == np.float32


def test_the_features_of_a_node_are_those_that_were_worked_out_by_hand() -> None:
    """Of `STANDING`, whose unit and origin are those of the graph; the shaft is (-0.75, -0.75)."""
    elbow = dict(zip(NODE_FEATURES, graph_of(person())[0][RIGHT_ELBOW].tolist(), strict=True))
    assert elbow == pytest.approx({
        "x": -0.45, "y": -0.6, "confidence": 0.9, "present": 1, "bone_x": -0.14, "bone_y": 0.4,
        "above_eyes": -0.744, "above_shoulders": -0.4, "above_knees": 1.3,
        "from_grip_x": 0.3, "from_grip_y": 0.25, "from_tip_x": 1.05, "from_tip_y": 1.0,
        "along_stick": -0.4125 / 1.125, "off_stick": -0.05 / 2**0.5,
    }, abs=1e-4)  # fmt: skip


def test_the_features_of_an_edge_are_those_that_were_worked_out_by_hand() -> None:
    """The upper arm is (-0.14, 0.4), 0.42379 long; the forearm (-0.25, -0.2), 0.32016 long; the torso points up."""
    features = graph_of(person())[1].tolist()
    edges = {tuple(ends): row for ends, row in zip(DIRECTED_EDGES.tolist(), features, strict=True)}
    upper_arm = dict(zip(EDGE_FEATURES, edges[RIGHT_SHOULDER, RIGHT_ELBOW], strict=True))
    assert upper_arm == pytest.approx({
        "length": 0.42379, "sin": 0.94386, "cos": -0.33035, "rigid": 0, "sin_to_forearm": -0.94340,
        "cos_to_forearm": -0.33166, "sin_to_torso": -0.33035, "cos_to_torso": -0.94386,
    }, abs=1e-4)  # fmt: skip
    rigid = {ends for ends, row in edges.items() if row[EDGE_FEATURES.index("rigid")]}
    assert rigid == {(GRIP, TIP), (TIP, GRIP)}


def test_without_hips_the_origin_lies_a_torso_below_the_shoulders() -> None:
    keypoints = person()
    keypoints[[LEFT_HIP, RIGHT_HIP]] = np.nan, np.nan, 0
    nodes, _, mask = graph_of(keypoints)
    assert not mask[[LEFT_HIP, RIGHT_HIP]].any() and mask.sum() == 17
    # The unit is 1.25 widths of the shoulders, which are 0.62 apart.
    assert nodes[[LEFT_SHOULDER, RIGHT_SHOULDER], :2] == pytest.approx(np.array([[0.4, -1], [-0.4, -1]]), abs=1e-4)


def test_a_wild_detection_is_no_farther_than_five_torsos() -> None:
    keypoints = person()
    keypoints[LEFT_ANKLE, :2] = 5000, -5000
    assert graph_of(keypoints)[0][LEFT_ANKLE, :2].tolist() == [5, -5]


def test_nothing_is_measured_against_a_stick_that_points_at_the_lens() -> None:
    keypoints = person()
    keypoints[TIP, :2] = keypoints[GRIP, :2] + (10, 10)
    assert not graph_of(keypoints)[0][:, -2:].any()


def test_what_is_measured_against_missing_points_is_nothing() -> None:
    keypoints = person()
    keypoints[[13, 14, GRIP]] = np.nan, np.nan, 0
    features = dict(zip(NODE_FEATURES, graph_of(keypoints)[0].T, strict=True))
    for name in ("above_knees", "from_grip_x", "from_grip_y", "along_stick", "off_stick"):
        assert not features[name].any(), name
    assert features["above_eyes"].any() and features["from_tip_x"].any()
    keypoints[:, 2] = 0
    keypoints[[RIGHT_SHOULDER, RIGHT_WRIST], 2] = 0.9
    assert not graph_of(keypoints)[2].any(), "nothing gives a unit"


def test_along_a_short_stick_nothing_is_farther_than_five_lengths() -> None:
    keypoints = person()
    keypoints[TIP, :2] = keypoints[GRIP, :2] + (0, -25)
    along = graph_of(keypoints)[0][LEFT_ANKLE, NODE_FEATURES.index("along_stick")]
    assert along == -5.0


def test_place_and_size_in_the_picture_do_not_matter() -> None:
    for a, b in zip(graph_of(person()), graph_of(person(37.0, 900.0, 80.0)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_left_hander_looks_like_the_right_hander_in_a_mirror() -> None:
    right = person()
    left = mirror_keypoints(right)
    left[:, 0] += 640
    grip, tip = tuple(left[GRIP].tolist()), tuple(left[TIP].tolist())
    graph = build_graph(canonical_keypoints(left[:BODY_COUNT], grip, tip, "left"))
    for a, b in zip(graph, graph_of(right), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_batch_gives_what_each_would_give() -> None:
    people = [person(), person(60.0), person(90.0, 100.0)]
    people[1][TIP] = (np.nan, np.nan, 0)
    for i, part in enumerate(build_graph(np.stack(people))):
        np.testing.assert_array_equal(part, np.stack([build_graph(p)[i] for p in people]))


def test_a_missing_node_is_masked_and_its_coordinates_count_for_nothing() -> None:
    absent, elsewhere = person(), person()
    absent[TIP], elsewhere[TIP] = (np.nan, np.nan, 0), (5.0, 7.0, 0)
    nodes, edges, mask = build_graph(absent)
    assert mask[TIP] == 0 and mask.sum() == 18
    assert np.isfinite(nodes).all() and not nodes[TIP].any()
    assert not edges[(DIRECTED_EDGES == TIP).any(1)].any()
    for a, b in zip(build_graph(elsewhere), (nodes, edges, mask), strict=True):
        np.testing.assert_array_equal(a, b)


def test_angles_to_forearm_and_torso_stay_when_the_camera_rolls() -> None:
    keypoints = person()
    turn = np.deg2rad(20)
    rolled = keypoints.copy()
    rolled[:, :2] = keypoints[:, :2] @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    before, after = graph_of(keypoints)[1], graph_of(rolled)[1]
    np.testing.assert_allclose(before[:, 4:], after[:, 4:], atol=1e-4)
    assert np.abs(before[:, 1] - after[:, 1]).max() > 0.2


def test_leaning_towards_the_camera_does_not_shrink_the_unit() -> None:
    keypoints = person()
    keypoints[[LEFT_HIP, RIGHT_HIP], 1] = keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER], 1].mean() + 10
    assert torso_length(keypoints) > 60
    keypoints[[LEFT_SHOULDER, RIGHT_SHOULDER], 0] = keypoints[LEFT_HIP, 0]
    thighs = [np.hypot(*(keypoints[hip] - keypoints[knee])[:2]) for hip, knee in ((11, 13), (12, 14))]
    assert torso_length(keypoints) == pytest.approx(max(thighs)), "somebody from the side"


def test_nobody_there_gives_an_empty_graph_without_a_warning() -> None:
    nodes, edges, mask = build_graph(np.full((19, 3), np.nan, np.float32))
    assert not nodes.any() and not edges.any() and not mask.any()


def test_the_crop_shows_the_hand_in_rgb() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    keypoints = person()
    x, y = keypoints[GRIP, :2].astype(int)
    image[y - 8 : y + 8, x - 8 : x + 8] = (255, 0, 0)
    crop = hand_crop(image, keypoints, "right")
    assert crop is not None and crop.shape == (128, 128, 3)
    assert crop[64, 64].tolist() == [0, 0, 255]
    px = 128 / (0.9 * float(torso_length(keypoints)))
    assert (crop[64, :, 2] > 128).sum() == pytest.approx(16 * px, abs=2)


def test_a_hand_outside_the_picture_or_of_somebody_tiny_gives_no_crop() -> None:
    image, keypoints = np.zeros((480, 640, 3), np.uint8), person()
    for x, y, seen in ((600, 240, True), (641, 240, False), (320, 481, False), (-1, 240, False)):
        keypoints[GRIP, :2] = x, y
        assert (hand_crop(image, keypoints, "right") is not None) == seen
    assert hand_crop(image, person() * (0.01, 0.01, 1.0), "right") is None


def test_the_crop_of_a_left_hander_is_mirrored() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (480, 640, 3), np.uint8)
    keypoints = person()
    mirrored = mirror_keypoints(keypoints)
    mirrored[:, 0] += 640
    right, left = hand_crop(image, keypoints, "right"), hand_crop(image[:, ::-1], mirrored, "left")
    assert right is not None and left is not None
    assert np.abs(right.astype(int) - left.astype(int)).mean() < 2


def test_without_a_grip_the_crop_goes_beyond_the_wrist_and_without_a_hand_there_is_none() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    keypoints = person()
    keypoints[[GRIP, TIP]] = (np.nan, np.nan, 0)
    assert hand_crop(image, keypoints, "right") is not None
    keypoints[RIGHT_WRIST] = (np.nan, np.nan, 0)
    assert hand_crop(image, keypoints, "right") is None


def test_a_doubtful_grip_does_not_move_the_crop_from_the_hand() -> None:
    image, keypoints = np.zeros((480, 640, 3), np.uint8), person()
    keypoints[GRIP] = 400, 400, 0.2
    # The wrist is at (250, 160), a third of the forearm beyond it is (241, 153).
    image[145:161, 233:249] = (255, 0, 0)
    crop = hand_crop(image, keypoints, "right")
    assert crop is not None and crop[64, 64].tolist() == [0, 0, 255]


class OnePicture:
    def __init__(self, picture: np.ndarray | None = None) -> None:
        self._picture = np.full((480, 640, 3), 90, np.uint8) if picture is None else picture

    @contextmanager
    def read(self, ref: FrameRef) -> Iterator[np.ndarray]:
        yield self._picture


def packet_with(gate: GateDecision | None = None) -> ArnisPacket:
    keypoints = person()
    stick = Stick(hand="right", grip=tuple(keypoints[GRIP].tolist()), tip=tuple(keypoints[TIP].tolist()))
    body = Person(track=1, box=(0, 0, 1, 1), score=0.9, keypoints=keypoints[:BODY_COUNT])
    return ArnisPacket(stream="0", sequence=0, pts=0.0, captured_at_ns=0, frame=FrameRef("", 0, 0, 640, 480),
                       person=body, stick=stick, gate=gate)  # fmt: skip


def stage(picture: np.ndarray | None = None, **settings: bool) -> Graph:
    graph = Graph(GraphSettings(**settings))
    graph.open(Context(streams=["0"], frames=OnePicture(picture), request_stop=lambda: None, health=dict))
    return graph


def test_the_stage_sees_a_left_hander_as_the_right_hander_in_a_mirror() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    packet = packet_with()
    mirrored = mirror_keypoints(person())
    mirrored[:, 0] += 640
    grip, tip = (tuple(mirrored[node].tolist()) for node in (GRIP, TIP))
    other = packet_with()
    other.person = Person(track=1, box=(0, 0, 1, 1), score=0.9, keypoints=mirrored[:BODY_COUNT])
    other.stick = Stick(hand="left", grip=grip, tip=tip)
    right, left = stage(picture).process(packet).graph, stage(picture[:, ::-1]).process(other).graph
    assert right is not None and left is not None and right.crop is not None and left.crop is not None
    assert left.nodes == pytest.approx(right.nodes, abs=1e-4) and left.edges == pytest.approx(right.edges, abs=1e-4)
    assert np.abs(right.crop.astype(int) - left.crop.astype(int)).mean() < 2


def test_the_stage_adds_graph_and_crop() -> None:
    packet = stage().process(packet_with(GateDecision()))
    assert packet.graph is not None and packet.graph.mask.all() and packet.graph.crop is not None
    packet = stage(crop=False).process(packet_with())
    assert packet.graph is not None and packet.graph.crop is None


def test_the_stage_takes_a_person_without_a_stick() -> None:
    packet = packet_with()
    packet.stick = None
    assert stage().process(packet).graph.mask[[GRIP, TIP]].tolist() == [0, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize("gate", [GateDecision(detect=False), GateDecision(classify=False)])
def test_the_stage_leaves_alone_what_a_gate_holds_back(gate: GateDecision) -> None:
    assert stage().process(packet_with(gate)).graph is None
