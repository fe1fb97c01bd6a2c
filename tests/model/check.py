"""Runs sequences of faults, each from a seed, and tells of each what it was."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pybeethoven.testing import Cluster
from tests.leftovers import Leftovers
from tests.model.steps import Round, to_text
from tests.model.world import World


class Errors(logging.Handler):
    """The errors that pybeethoven logs; there are to be none but those for what was killed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if "killed" not in record.getMessage():
            self.records.append(record.getMessage())

    def __enter__(self) -> Errors:
        logging.getLogger("pybeethoven").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("pybeethoven").removeHandler(self)


@dataclass
class Check:
    """Sequences on clusters that `make_cluster` makes, and how many there were."""

    make_cluster: Callable[[], Cluster]
    sequences: list[int] = field(default_factory=list)
    rounds: int = 0
    slowest: float = 0.0

    async def run(self, seed: int, rounds: list[Round], until: float) -> None:
        """Play the sequence of a seed, no further than to the round in which `until` is, of the
        monotonic clock.

        Raises `AssertionError`, which has the steps that led to it, also in place of what else was
        raised.
        """
        self.sequences.append(seed)
        played: list[Round] = []
        leftovers, complaints = Leftovers(), list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        try:
            with Errors() as errors:
                await self._play(rounds, played, until)
                await leftovers.gone()
                assert not complaints, f"unhandled in the event loop: {complaints}"
                assert not errors.records, f"logged as errors: {errors.records}"
        except Exception as error:
            text = f"--model-seed {seed}, or --model-steps '{to_text(played)}'\n{error!r}"
            raise AssertionError(text) from error

    async def _play(self, rounds: list[Round], played: list[Round], until: float) -> None:
        async with self.make_cluster() as cluster:
            world = World(cluster)
            try:
                await world.start()
                for steps in rounds:
                    played.append(steps)
                    await world.play(steps)
                    self.rounds += 1
                    if time.monotonic() > until:
                        break
            finally:
                self.slowest = max(self.slowest, world.slowest)
                await world.leave()

    def __str__(self) -> str:
        """What was played, so that it can be repeated."""
        return (
            f"{len(self.sequences)} sequences, {self.rounds} rounds of faults, "
            f"well again after {self.slowest:.1f} s at most; --model-seed {self.sequences}"
        )
