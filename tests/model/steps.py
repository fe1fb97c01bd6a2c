"""What may happen to the cluster: random steps, and the little that must be known to choose them.

A sequence is rounds of steps, as text `kill a, wait 0.1; cut a p, wait 2.6`. After each round all
is mended that is not part of the state: cuts, slowness, frozen nodes, Mnesia, EPMD. Which nodes run
stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import TypeAlias

BEAMS = "abc"
PYTHONS = "pq"
NODES = BEAMS + PYTHONS

Step: TypeAlias = tuple[str, ...]
"""What happens, and to whom."""
Round: TypeAlias = list[Step]

WAITS = (0.02, 0.3, 1.4)
"""How long a `wait` takes, in tick times: the last is longer than it takes to be found dead."""
DELAY = 0.1
"""How slow a `slow` connection is, in tick times."""
MOST_STEPS = 4


@dataclass
class State:
    """What is known of the cluster, for the choice of the next step."""

    up: set[str] = field(default_factory=lambda: set(BEAMS))
    joined: set[str] = field(default_factory=lambda: set(PYTHONS))
    frozen: set[str] = field(default_factory=set)
    without_mnesia: set[str] = field(default_factory=set)
    hit: set[str] = field(default_factory=set)
    """Whose CoreServer was killed in this round: more often, and the node gives up."""
    cut: bool = False
    epmd: bool = True

    def possible(self) -> dict[str, list[Step]]:
        """Each kind of step that is possible now, with all to whom it can happen."""
        awake = sorted(self.up - self.frozen)
        pairs = list(combinations(NODES, 2))
        lively = [x for x in awake if x not in self.without_mnesia] + sorted(self.joined)
        calm = self.epmd and not (self.cut or self.frozen or self.without_mnesia)
        steps: dict[str, list[Step]] = {
            "kill": [("kill", x) for x in sorted(self.up)],
            "stop": [("stop", x) for x in awake],
            "freeze": [("freeze", x) for x in awake],
            "thaw": [("thaw", x) for x in sorted(self.frozen)],
            "cut": [("cut", x, y) for x, y in pairs],
            "isolate": [("isolate", x) for x in NODES],
            "heal": [("heal",)] if self.cut else [],
            "slow": [("slow", x, y) for x, y in pairs],
            "mnesia": [("mnesia", x) for x in awake if x not in self.without_mnesia],
            "epmd": [("epmd",)] if self.epmd else [],
            "core": [("core", x) for x in lively if x not in self.hit],
            "leave": [("leave", x) for x in sorted(self.joined)],
            "start": [("start", x) for x in BEAMS if calm and x not in self.up],
            "join": [("join", x) for x in PYTHONS if calm and x not in self.joined],
        }
        return {kind: found for kind, found in steps.items() if found}

    def apply(self, step: Step) -> None:
        """Know that a step was taken."""
        match step:
            case (("kill" | "stop"), x):
                self.up.discard(x)
                self.frozen.discard(x)
                self.without_mnesia.discard(x)
            case ("start", x):
                self.up.add(x)
            case ("leave", x):
                self.joined.discard(x)
            case ("join", x):
                self.joined.add(x)
            case ("freeze", x):
                self.frozen.add(x)
            case ("thaw", x):
                self.frozen.discard(x)
            case ("mnesia", x):
                self.without_mnesia.add(x)
            case ("core", x):
                self.hit.add(x)
            case (("cut" | "isolate" | "heal") as kind, *_):
                self.cut = kind != "heal"
            case ("epmd",):
                self.epmd = False

    def mend(self) -> None:
        """Know that all was mended."""
        self.frozen.clear()
        self.without_mnesia.clear()
        self.hit.clear()
        self.cut, self.epmd = False, True


def random_round(state: State, random: Random) -> Round:
    """A round of steps that are possible one after the other, the kinds equally likely."""
    steps: Round = []
    for _ in range(random.randint(1, MOST_STEPS)):
        possible = state.possible()
        step = random.choice(possible[random.choice(sorted(possible))])
        state.apply(step)
        steps += [step, ("wait", str(random.choice(WAITS)))]
    state.mend()
    return steps


def random_rounds(seed: int, count: int) -> list[Round]:
    """The sequence that a seed stands for."""
    random, state = Random(seed), State()
    return [random_round(state, random) for _ in range(count)]


def to_text(rounds: list[Round]) -> str:
    """The sequence for people, and for `--model-steps`."""
    return "; ".join(", ".join(" ".join(step) for step in steps) for steps in rounds)


def from_text(text: str) -> list[Round]:
    """What `to_text` gave."""
    return [[tuple(step.split()) for step in steps.split(",")] for steps in text.split(";")]
