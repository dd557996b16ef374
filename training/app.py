"""`arnis-train`: makes the models. A subcommand's package is imported only when it is called."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from types import ModuleType

from engine.command import Parser, complain
from engine.errors import UserError

PROGRAM = "arnis-train"
EXTRA = "pip install '.[train]'"

COMMANDS = {
    "synth": ("training.synth.command", "draw synthetic people with a stick"),
    "detector": ("training.stick.command", "train the stick detector on them"),
    "label": ("training.data.label_command", "label your own pictures, in a folder for each class"),
    "convert": ("training.data.convert_command", "turn labelled keypoints into another form, or several into one"),
    "check": ("training.data.check_command", "say what is wrong with a table before it is trained on"),
    "graphs": ("training.data.graphs_command", "write a table as torch-geometric graphs"),
    "see": ("training.see", "write down what the detectors see in the pictures"),
    "hand": ("training.hand", "train the network that tells which hand holds the stick"),
    "errors": ("training.errors", "train the network that tells how far off measured angles may be"),
    "fit": ("training.geopose.fit_command", "train the pose classifier on that"),
    "ablate": ("training.geopose.ablate_command", "compare classifiers and what each part of them is worth"),
    "export": ("training.geopose.export_command", "calibrate, measure and export the pose classifier"),
    "evaluate": ("training.geopose.evaluate_command", "measure an exported model on any table"),
    "explain": ("training.geopose.explain_command", "show what the pose classifier looks at and hangs on"),
    "report": ("training.geopose.report.command", "write the HTML report of a run anew"),
    "bands": ("training.bands", "learn the bands that feedback judges by"),
    "halve": ("training.halve", "store a model's weights as float16, where that loses nothing"),
}
"""Module with `add_arguments(parser)` and `run(args)`, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0: done; 1: `check` says no, or the reader of the output has gone; 2: a mistake that the user can
    mend; 130: interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # of torch-geometric, when it is imported
    parser = Parser(prog=PROGRAM, description="Make the models of arnis-stream, in this order.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    try:
        for name, (module, summary) in COMMANDS.items():
            command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
            if words[:1] == [name]:
                _load(module).add_arguments(command)
        args = parser.parse(words)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        code = int(_load(COMMANDS[args.command][0]).run(args) or 0)
        sys.stdout.flush()
        return code
    except UserError as error:
        complain(PROGRAM, error)
        return 2
    except BrokenProcessPool:
        complain(PROGRAM, "one of the processes died, perhaps for want of memory; repeat the command")
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader (`| head`) has gone; Python would complain about it once more at exit
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            complain(PROGRAM, f"{error.strerror}; make room, then repeat the command")
            return 2
        if error.filename is None:
            raise
        place = error.filename2 or error.filename  # where the part of a file was to go
        complain(PROGRAM, f"{place}: {error.strerror}; choose another place, or mend that")
        return 2
    except KeyboardInterrupt:
        complain(PROGRAM, "interrupted")
        return 130


def _load(module: str) -> ModuleType:
    """The subcommand's module; raises UserError when a package for training is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in {"engine", "stages", "training", "models"}:
            raise
        raise UserError(f"training needs {error.name}, which is not installed; run `{EXTRA}`") from None


if __name__ == "__main__":
    raise SystemExit(main())
