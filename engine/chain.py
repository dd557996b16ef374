"""A worker's stages, called one after the other; a failure costs the packet, or the batch, that a stage was given."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.clock import now_ns
from engine.config import import_name
from engine.errors import UserError
from engine.packet import Packet, Span
from engine.stage import Context, FrameOverrun, Stage, stage_label

_log = logging.getLogger(__name__)


class WorkerBroken(Exception):
    """So many packets failed in a row that going on makes no sense."""


class Chain:
    """Stages that share a worker."""

    def __init__(self, stages: Sequence[Stage], errors_in_a_row: int) -> None:
        self._stages = list(stages)
        self._opened: list[Stage] = []
        self._errors_in_a_row = errors_in_a_row
        self._errors: Counter[str] = Counter()
        self._batched = [stage for stage in stages if hasattr(stage, "process_batch")]

    @classmethod
    def load(cls, dotted_names: Sequence[str], sections: Mapping[str, Any], errors_in_a_row: int) -> Chain:
        """Import the stages and give them their settings. Raises UserError."""
        kinds = [import_name(dotted, "[[worker]]") for dotted in dotted_names]
        stages = [kind(msgspec.convert(sections.get(kind.name, {}), kind.settings_type)) for kind in kinds]
        return cls(stages, errors_in_a_row)

    @property
    def max_batch(self) -> int:
        """How many packets are worth being handled at once."""
        return max([1, *(int(getattr(stage, "max_batch", 1)) for stage in self._batched)])

    @property
    def max_wait_ms(self) -> float:
        """How long to wait for a batch to fill."""
        return max([0.0, *(float(getattr(stage, "max_wait_ms", 0.0)) for stage in self._batched)])

    def open(self, context: Context) -> None:
        """Open all stages in order; raises what they raise."""
        for stage in self._stages:
            self._opened.append(stage)  # before `open`: what it has got hold of must be released even if it fails
            stage.open(context)

    def close(self) -> None:
        """Close what was opened, all of it, in the order of the data; an error is logged."""
        opened, self._opened = self._opened, []
        for stage in opened:
            try:
                if hasattr(stage, "close"):
                    stage.close()
            except Exception:
                _log.exception("stage %s did not close cleanly", stage_label(type(stage)))

    def idle(self) -> None:
        """Give every stage the chance to look after its own affairs."""
        now = now_ns()
        for stage in self._opened:
            idle = getattr(stage, "idle", None)
            if idle is not None:
                idle(now)

    def describe(self) -> dict[str, dict[str, str]]:
        """Device, runtime and versions by stage."""
        return {stage_label(type(stage)): stage.describe() for stage in self._stages if hasattr(stage, "describe")}

    def groups(self, packets: Sequence[Packet]) -> list[list[Packet]]:
        """What to `run` at once: together where a stage works on batches, else one by one, so that each is on its way
        as soon as it can be."""
        size = self.max_batch
        return [list(packets[start : start + size]) for start in range(0, len(packets), size)]

    def run(self, packets: list[Packet]) -> None:
        """Take the packets of a group through all stages, in place.

        Raises UserError as stages do, and WorkerBroken after too many failures in a row.
        """
        now = now_ns()
        for packet in packets:
            if packet.expires_at_ns is not None and now > packet.expires_at_ns and not packet.ended:
                packet.end("dropped", "too_old")
        for stage in self._stages:
            self._run_stage(stage, packets)

    def _run_stage(self, stage: Stage, packets: list[Packet]) -> None:
        wanted = packets if getattr(stage, "sees_ended", False) else [packet for packet in packets if not packet.ended]
        if not wanted:
            return
        label = stage_label(type(stage))
        batch = getattr(stage, "process_batch", None)
        has_work = getattr(stage, "has_work", lambda packet: True)
        for group in [wanted] if batch else [[packet] for packet in wanted]:
            entered = now_ns()
            try:
                results = batch(group) if batch else [stage.process(group[0])]
                for packet, result in zip(group, results, strict=True):
                    if result is None:
                        packet.end("dropped", f"refused:{label}")
                    elif result is not packet:
                        raise TypeError("it must give back the packets that it got, in their order")
                if any(map(has_work, group)):
                    self._errors[label] = 0
            except UserError:
                raise
            except FrameOverrun:
                _end_all(group, "overrun")
            except Exception as error:
                self._count_error(label, error)
                _end_all(group, f"error:{label}")
            left = now_ns()
            for packet in group:
                packet.spans.append(Span(label, entered, left))

    def _count_error(self, label: str, error: Exception) -> None:
        self._errors[label] += 1
        count = self._errors[label]
        _log.error("stage %s failed on a packet: %s: %s", label, type(error).__name__, error)
        _log.debug("where it failed", exc_info=True)
        if count >= self._errors_in_a_row:
            raise WorkerBroken(f"stage {label} failed {count} times in a row: {error}") from error


def _end_all(packets: Sequence[Packet], reason: str) -> None:
    """End what a failing stage left undone; what had ended before keeps its own reason."""
    for packet in packets:
        if not packet.ended:
            packet.end("dropped", reason)
