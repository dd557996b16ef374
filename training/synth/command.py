"""The command line: draw a data set, plan one, compare it with the statistics, draw films, fit the skeletons."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.errors import UserError
from engine.numbers import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `synth`: a data set by default, or one of the sub-commands."""
    actions = ("pictures", "poses", "compare", "films", "demo", "skeletons")
    text = "pictures (default), poses that are planned and not drawn, comparison of either with the statistics, films "
    text += "of sessions, demo clip, class skeletons"
    parser.add_argument("action", nargs="?", default=actions[0], choices=actions, help=text)
    parser.add_argument(
        "--out", type=Path, help="folder of the pictures, poses or films, or the file of the demo clip or the skeletons"
    )
    parser.add_argument("--data", type=Path, help="compare: data set; without it, poses are planned and not drawn")
    parser.add_argument("--people", type=at_least(1), default=100, help="synthetic people (default 100)")
    parser.add_argument("--per-person", type=at_least(1), default=9, help="pictures or poses of each (default 9)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="the same seed makes the same (default 1)")
    parser.add_argument(
        "--spread", type=float, default=1.0,
        help="how far poses stray from the mean of their class: 1 as in photographs (default), 0.5 in good form",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=picture_size, metavar="WIDTHxHEIGHT",
        help="of every picture (default 640x640 or 640x480); 1280x720 is what arnis-stream asks of a camera",
    )  # fmt: skip
    parser.add_argument("--processes", type=at_least(1), default=2, help="processes (default 2)")
    parser.add_argument(
        "--backgrounds",
        type=Path,
        help="folder with photographs for the background (default: drawn rooms), such as those of the Debian packages "
        "mate-backgrounds, lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 and plasma-workspace-wallpapers; "
        "only for training, never shipped",
    )
    parser.add_argument("--truth", type=Path, help="demo: also write the true keypoints of every frame to this table")


def picture_size(text: str) -> tuple[int, int]:
    """Width and height of `1280x720`; raises argparse's error for anything else or what no camera gives."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 240 <= int(width) <= 3840 and 240 <= int(height) <= 2160):
        raise argparse.ArgumentTypeError(f"{text!r} is no picture size; write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say; 0 on success."""
    for name, action in (("truth", "demo"), ("data", "compare")):
        if getattr(args, name) is not None and args.action != action:
            raise UserError(f"--{name} is for `synth {action}`; leave it out")
    if args.action == "compare":
        from training.synth.compare import compare, format_rows, planned_samples, read_table

        if args.data is None:
            # Planned pictures are as good as a data set for the keypoints, in a fraction of the time.
            samples = planned_samples(args.people, args.per_person, args.seed)
        else:
            samples = read_table(args.data)
        sys.stdout.write(format_rows(compare(samples)) + "\n")
        return 0
    if args.out is None:
        raise UserError(f"{args.action} needs --out")
    if args.backgrounds is not None and not args.backgrounds.is_dir():
        raise UserError(f"--backgrounds {args.backgrounds} is not a folder")
    if args.action == "poses" and (args.size or args.backgrounds):
        raise UserError("poses are planned and not drawn: leave --size and --backgrounds out")
    if args.action == "skeletons":
        from training.synth.skeletons import write_skeletons

        write_skeletons(args.out)
        return 0
    if args.action == "demo":
        if args.out.suffix.lower() not in (".mp4", ".mkv"):
            raise UserError(f"--out {args.out}: the name of the clip must end in .mp4 or .mkv")
        from training.synth.demo import write_demo

        write_demo(args.out, truth=args.truth)
        return 0
    if not 0 <= args.spread <= 2:
        raise UserError("--spread must be between 0 and 2")
    from training.synth.scene import photo_files

    if args.backgrounds is not None and not photo_files(args.backgrounds):
        raise UserError(f"--backgrounds {args.backgrounds} holds no photograph; leave it out for drawn rooms")
    if args.action == "films":
        from training.synth.session import write_sessions

        write_sessions(args.out, args.people, args.seed, args.processes, args.backgrounds, args.spread)
        return 0
    from training.synth.plan import write_poses
    from training.synth.write import Order, write_dataset

    write = write_poses if args.action == "poses" else write_dataset
    write(
        Order(
            args.out, args.people, args.per_person, args.seed, args.processes, args.backgrounds, args.spread, args.size
        )
    )
    return 0
