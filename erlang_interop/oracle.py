"""A BEAM that is asked what it makes of terms.

    with Oracle() as oracle:
        [(neighbours, as_sorted)] = oracle.ask((Atom("order"), [[1, 1.0, Atom("a")]]))

`term_oracle.erl` says what can be asked.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

from pybeethoven.etf import Atom, Pid, Term, decode, encode
from pybeethoven.testing import BeamDownError

SOURCE = Path(__file__).with_name("term_oracle.erl")

_RUN = (
    "[Source] = init:get_plain_arguments(),"
    "{ok, Module, Binary} = compile:file(Source, [binary]),"
    "{module, _} = code:load_binary(Module, Source, Binary),"
    "Module:main()."
)


class Oracle:
    """A BEAM of its own, not distributed; it lives until the block is left.

    `release` is its OTP release, `node` and `pid` are what it calls itself, and `terms` are pids,
    references, a port and funs of its own. Raises `BeamDownError` on entry when it does not start.
    """

    release: int
    node: Term
    pid: Pid
    terms: list[Term]

    def __init__(self, erl: str = "erl") -> None:
        self._erl = erl

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._erl, "-noinput", "-boot", "no_dot_erlang", "-eval", _RUN, "-extra", SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "ERL_CRASH_DUMP_SECONDS": "0"},
        )
        try:
            self.release, self.node, self.pid, self.terms = self.ask(Atom("facts"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()

    def ask(self, request: Term) -> Term:
        """Send a request and wait for its answer. Raises `BeamDownError` when the BEAM ends."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        data = encode(request)
        try:
            stdin.write(len(data).to_bytes(4, "big") + data)
            stdin.flush()
            length = int.from_bytes(stdout.read(4), "big")
            answer = stdout.read(length)
        except BrokenPipeError:
            answer, length = b"", 0
        if not answer or len(answer) < length:
            raise BeamDownError("the oracle ended instead of answering; its stderr tells why")
        return decode(answer)
