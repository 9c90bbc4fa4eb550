"""What is measured, and how fast this library is meant to be."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal[
    "one by one", "in turns", "threads", "tasks", "second client", "start", "import"
]


@dataclass(frozen=True, slots=True)
class Run:
    """One contender on one workload, in a process of its own.

    Attributes:
        contender: Whose client.
        kind: What it does.
        upstream: Which of the server's URLs it calls.
        in_flight: How many calls at once.
        note: What sets it apart from the contender's other run in the same block.
        with_command: Whether it runs where the command of httpx is installed, too.
    """

    contender: str
    kind: Kind
    upstream: str = ""
    in_flight: int = 1
    note: str = ""
    with_command: bool = False

    @property
    def label(self) -> str:
        """What goals and the report call it."""
        return self.contender + self.note


@dataclass(frozen=True, slots=True)
class Goal:
    """Two runs of a block, compared.

    Attributes:
        text: What is compared.
        unit: The measure.
        run: The label of the run that has a goal.
        peer: The label of what it is held against; empty: the value itself counts.
        relation: The side of the bound that is good.
        bound: The goal; None: for information.
        difference: Whether the peer is subtracted, and not divided by.
    """

    text: str
    unit: str
    run: str = "ours"
    peer: str = ""
    relation: Literal["≤", "≥"] = "≤"
    bound: float | None = None
    difference: bool = False

    def compare(self, value: float, peer: float) -> float:
        """Put two values, measured one after the other, in relation."""
        if not self.peer:
            return value
        return value - peer if self.difference else value / peer

    def reached(self, value: float) -> bool | None:
        """Whether a value is good; None where any is."""
        if self.bound is None:
            return None
        return value <= self.bound if self.relation == "≤" else value >= self.bound


@dataclass(frozen=True, slots=True)
class Block:
    """Runs that take turns, and what is read from them.

    Attributes:
        name: Its name on the command line.
        runs: What takes turns.
        goals: What is compared.
        turns: How many turns a round has: more where a run is short.
    """

    name: str
    runs: tuple[Run, ...]
    goals: tuple[Goal, ...] = field(default=())
    turns: int = 1


def one_by_one() -> Block:
    """Synchronous calls on one connection, each after the other."""
    contenders = ("ours", "ours, watched", "httpx", "openai", "http.client")
    text = "create, one by one: time of a call"
    return Block(
        "sync",
        tuple(Run(name, "in turns", "http-0") for name in contenders),
        (
            Goal(text, "ms", peer="httpx", bound=0.3),
            Goal(text, "ms", run="ours, watched", peer="httpx", bound=0.7),
            Goal(text, "ms", peer="openai", bound=0.3),
            Goal(text, "ms", peer="http.client"),
        ),
    )


def one_by_one_over_tls() -> Block:
    """The same over https."""
    return Block(
        "sync-https",
        tuple(Run(name, "in turns", "https-0") for name in ("ours", "httpx")),
        (Goal("create, one by one, https: time of a call", "ms", peer="httpx", bound=0.4),),
    )


def tasks_256() -> Block:
    """More calls in flight than httpx has connections by default."""
    text = "create, 256 in flight: calls/s"
    return Block(
        "256",
        tuple(Run(name, "tasks", "http-300", 256) for name in ("ours", "aiohttp", "openai")),
        (
            Goal(text, "calls/s", peer="aiohttp", relation="≥", bound=1),
            Goal(text, "calls/s", peer="openai", relation="≥", bound=1.4),
        ),
    )


def tasks_1000() -> Block:
    """As many calls as a busy server has in flight."""
    contenders = ("ours", "aiohttp", "openai", "httpx_aiohttp", "ours over httpx_aiohttp")
    text = "create, 1,000 in flight: calls/s"
    return Block(
        "1000",
        (
            *(Run(name, "tasks", "http-300", 1000) for name in contenders),
            Run("ours", "tasks", "http-300", 16, " (16 in flight)"),
        ),
        (
            Goal(text, "calls/s", peer="aiohttp", relation="≥", bound=1.1),
            Goal(text, "calls/s", peer="openai", relation="≥", bound=4),
            Goal(
                text,
                "calls/s",
                run="ours over httpx_aiohttp",
                peer="httpx_aiohttp",
                relation="≥",
                bound=0.75,
            ),
            Goal(
                "create, 1,000 in flight: processor time of a call",
                "CPU µs",
                peer="aiohttp",
                bound=1.1,
            ),
            Goal(
                "create, 1,000 in flight: processor time of a call",
                "CPU µs",
                peer="ours (16 in flight)",
                bound=1.2,
            ),
        ),
    )


def threads() -> Block:
    """Many threads that share a synchronous client."""
    text = "create, 128 threads: calls/s"
    return Block(
        "threads",
        tuple(Run(name, "threads", "http-50", 128) for name in ("ours", "httpx", "openai")),
        (
            Goal(text, "calls/s", peer="httpx", relation="≥", bound=5.5),
            Goal(text, "calls/s", peer="openai", relation="≥", bound=2),
        ),
    )


def start(scheme: Literal["http", "https"]) -> Block:
    """A new process, up to its first session."""
    contenders = ("ours", "httpx + pydantic", "openai")
    time, memory = f"start to first session, {scheme}", f"the same, {scheme}: peak memory"
    return Block(
        f"start-{scheme}",
        tuple(Run(name, "start", f"{scheme}-0") for name in contenders),
        (
            Goal(time, "ms", peer="httpx + pydantic", bound=1.05),
            Goal(f"the same, {scheme}: processor time", "CPU ms", peer="httpx + pydantic"),
            Goal(time, "ms", peer="openai"),
            Goal(memory, "MB", peer="httpx + pydantic", bound=3, difference=True),
            Goal(memory, "MB", peer="openai", difference=True),
        ),
        turns=5,
    )


def start_beside_command() -> Block:
    """The same where rich and click are installed, as they often are: httpx imports them."""
    contenders = ("ours", "httpx + pydantic")
    time = "start to first session, with `httpx[cli]`"
    return Block(
        "start-command",
        tuple(Run(name, "start", "http-0", with_command=True) for name in contenders),
        (
            Goal(time, "ms", peer="httpx + pydantic", bound=0.75),
            Goal("the same: processor time", "CPU ms", peer="httpx + pydantic"),
        ),
        turns=5,
    )


def bare_import() -> Block:
    """What `import chatkit_sessions` alone takes."""
    return Block(
        "import",
        (Run("ours", "import"), Run("python -c pass", "import")),
        (
            Goal(
                "`import chatkit_sessions`", "ms", peer="python -c pass", bound=15, difference=True
            ),
        ),
        turns=10,
    )


def second_client() -> Block:
    """Another client in a process that has used one, such as for another key."""
    return Block(
        "second-client",
        (Run("ours", "second client", "https-0"),),
        (
            Goal("a second client, https: making it", "ms", bound=1),
            Goal("a second client, https: up to its first session", "ms with a session"),
        ),
        turns=3,
    )


BLOCKS: Final = (
    one_by_one(),
    one_by_one_over_tls(),
    tasks_256(),
    tasks_1000(),
    threads(),
    start("http"),
    start("https"),
    start_beside_command(),
    bare_import(),
    second_client(),
)
