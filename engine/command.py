"""How every command reads its arguments and says what is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends the program with 2 and one sentence where the arguments are wrong; argparse would print the usage too."""

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """What `arguments`, or those of the program, say. Names that are no text end the program: they fit neither into
        a message between processes nor into JSON."""
        words = sys.argv[1:] if arguments is None else arguments
        for word in words:
            try:
                word.encode()
            except UnicodeEncodeError:
                name = repr(os.fsencode(word))[1:]
                self.exit(2, f"{self.prog}: {name} is not written in UTF-8; give it another name\n")
        return self.parse_args(words)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def complain(program: str, sentence: object) -> None:
    """One line on the standard error, whatever is in a name that it quotes: what moves the cursor or turns the text
    round is spelt out. Where that takes none, the exit code has to do."""
    said = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(sentence))
    with suppress(OSError, ValueError):  # full; closed, as the reader has gone
        sys.stderr.write(f"{program}: {said}\n")
