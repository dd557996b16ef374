"""A network for sticks sees a crop and is told of the body; its places come back into the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from looking import standing_person, write_card

from engine.frames import OwnedFrames
from engine.stage import Context
from stages.detect import DetectSettings, DetectStick, make_stick_detector
from stages.detectors import Runtime
from stages.packets import ArnisPacket, GateDecision, Hand, Person
from stages.stick_crop import stick_crop


def make_stick_network(folder: Path, size: int = 64, told: bool = False) -> str:
    """A network that sees the grip at the crop's centre and the tip left of it, when the picture is bright; or one that
    is told of the body and puts grip and tip to its wrists."""
    helper = pytest.importorskip("onnx.helper")
    points = helper.make_tensor("points_value", 1, [1, 2, 3], [0.5, 0.5, 0.9, 0.25, 0.5, 0.8])
    wrists = helper.make_tensor("wrists_value", 7, [2], [9, 10])
    inputs = [helper.make_tensor_value_info("image", 2, [1, size, size, 3])]
    nodes = [
        helper.make_node("Cast", ["image"], ["bright"], to=1),
        helper.make_node("ReduceMean", ["bright"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Constant", [], ["white"], value=helper.make_tensor("w", 1, [1], [255.0])),
        helper.make_node("Div", ["mean", "white"], ["presence"]),
    ]
    if told:
        inputs.append(helper.make_tensor_value_info("body", 1, [1, 17, 3]))
        nodes.append(helper.make_node("Constant", [], ["wrists"], value=wrists))
        nodes.append(helper.make_node("Gather", ["body", "wrists"], ["points"], axis=1))
    else:
        nodes.append(helper.make_node("Constant", [], ["points"], value=points))
    outputs = {"points": [1, 2, 3], "presence": [1]}
    graph = helper.make_graph(
        nodes, "stick", inputs, [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return write_card(folder, "stick", "stick_heatmap", 0.4, tuple(outputs))


@pytest.mark.parametrize("brightness", [250, 115, 10])
def test_the_sticks_places_come_back_into_the_picture(tmp_path: Path, brightness: int) -> None:
    detector = make_stick_detector(make_stick_network(tmp_path), Runtime("onnxruntime", 1))
    body = standing_person(100, (800, 200))
    found = detector.detect(np.full((600, 1000, 3), brightness, np.uint8), body, (None,))
    if brightness == 10:
        assert not found, "presence is below the card's threshold of 0.4"
        return
    x, y, side = stick_crop(body, 1000, 600)
    grip, tip = found[0].points
    assert grip == pytest.approx([x, y, 0.9], abs=0.01)
    assert tip == pytest.approx([x - side / 4, y, 0.8], abs=0.01)


def test_an_end_beyond_the_picture_is_missing(tmp_path: Path) -> None:
    """A network that puts grip and tip to the wrists, of which one is in the crop, but not in the picture."""
    detector = make_stick_detector(make_stick_network(tmp_path, told=True), Runtime("onnxruntime", 1))
    body = standing_person(100, (40, 200))
    assert body[10, 0] < 0 < body[9, 0]
    (found,) = detector.detect(np.full((800, 800, 3), 250, np.uint8), body, (None,))
    grip, tip = found.points
    assert grip == pytest.approx(body[9], abs=0.01)
    assert np.isnan(tip[:2]).all() and tip[2] == 0


class Looks:
    """Somebody who stands in pictures that are bright or dark, and where in them a stick is looked for."""

    body = standing_person(100, (400, 200))

    def __init__(self, folder: Path) -> None:
        self._frames, self._count = OwnedFrames(), 0
        self._stage = DetectStick(DetectSettings(stick=make_stick_network(folder), hand="right"))
        self._stage.open(
            Context(streams=["0"], frames=self._frames, request_stop=lambda: None, health=dict)
        )

    def __call__(
        self, bright: bool, still: bool = False, track: int = 1, stream: str = "0"
    ) -> tuple[float, float] | None:
        """Centre of the square in which a stick was seen; None when none was."""
        self._count += 1
        self._frames.begin(800, 800, busy=())[:] = 250 if bright else 10
        person = Person(track=track, box=(0, 0, 800, 800), score=0.9, keypoints=self.body)
        packet = ArnisPacket(
            stream=stream, sequence=self._count, pts=self._count / 30, captured_at_ns=0, person=person,
            frame=self._frames.commit(self._count), gate=GateDecision(still=still),
        )  # fmt: skip
        stick = self._stage.process(packet).stick
        return None if stick is None else (round(stick.grip[0]), round(stick.grip[1]))

    def centre(self, hand: Hand | None) -> tuple[float, float]:
        x, y, _ = stick_crop(self.body, 800, 800, hand)
        return round(x), round(y)


def test_a_stick_that_was_seen_is_looked_for_closer(tmp_path: Path) -> None:
    look = Looks(tmp_path)
    assert len({look.centre(hand) for hand in (None, "left", "right")}) == 3
    assert look(True) == look.centre(None)
    assert look(True) == look(True, still=True) == look.centre("right")
    assert look(True, stream="1") == look.centre(None), "another camera"
    assert look(True) == look(True, stream="1") == look.centre("right")
    assert look(True, track=2) == look.centre(None), "somebody else"


def test_a_stick_that_is_not_seen_any_more_is_looked_for_in_turns(tmp_path: Path) -> None:
    look = Looks(tmp_path)
    assert look(True) and look(False) is None
    assert look(True) == look.centre(None)
    assert look(False) is look(False) is None
    assert look(True) == look.centre("right"), "in the hand that held it"


def test_while_no_stick_was_seen_it_is_looked_for_everywhere(tmp_path: Path) -> None:
    for misses, seen in ((1, "right"), (2, "left"), (3, None)):
        look = Looks(tmp_path)
        assert [look(False) for _ in range(misses)] == [None] * misses
        assert look(True) == look.centre(seen)
    look = Looks(tmp_path)
    assert look(False) is None
    assert look(True, still=True) == look.centre(None), (
        "in a hold at once, and of looks that are equally sure the first"
    )


def test_the_stick_network_is_told_where_the_wrists_are(tmp_path: Path) -> None:
    detector = make_stick_detector(make_stick_network(tmp_path, told=True), Runtime("onnxruntime", 1))
    body = standing_person(100, (400, 200))
    body[9, 2], body[10] = 0.7, np.nan
    (found,) = detector.detect(np.full((800, 800, 3), 250, np.uint8), body, (None,))
    grip, tip = found.points
    assert grip == pytest.approx(body[9], abs=0.01)
    assert tip[2] == 0, "a wrist that was not found has no place"
