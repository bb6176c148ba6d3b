"""A RabbitMQ cluster of three nodes on loopback. A node that was killed comes back with its queues."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

from dev.processes import Server
from dev.servers import Epmd, RabbitMQ

T = TypeVar("T")

NODES = 3
LEADER = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
{_, Node} = amqqueue:get_pid(Queue), Node.
"""
"""`list_queues` shows it too, but asks every queue, and waits for those without a majority."""


@dataclass(slots=True)
class Node(RabbitMQ):
    """A node whose epmd is that of the cluster, and outlives it."""

    start_seconds_max: ClassVar[int] = 180

    def stop(self) -> None:
        """Ends the node alone."""
        Server.stop(self)

    def kill(self) -> None:
        """Ends the node alone, as a power failure would."""
        Server.kill(self)


@dataclass(slots=True)
class Cluster:
    """The nodes share a cookie and an epmd, and find each other by their configuration: three times `rabbitmqctl
    join_cluster` would take a minute more on a busy machine.
    """

    folder: Path
    nodes: list[Node] = field(init=False)
    epmd: Epmd = field(init=False)

    def __post_init__(self) -> None:
        self.epmd = Epmd(self.folder / "epmd")
        self.nodes = [Node(self.folder / f"node-{number}") for number in range(NODES)]
        cookie, names = secrets.token_hex(16), [node.node for node in self.nodes]
        for node in self.nodes:
            node.epmd, node.cookie, node.peers = self.epmd, cookie, names

    @property
    def url(self) -> str:
        """How to connect: the URL of each node."""
        return ";".join(node.url for node in self.nodes)

    def start(self) -> None:
        """Starts all nodes, of which each waits for the others. Raises ServerError."""
        self.ensure_up()

    def stop(self) -> None:
        """Ends everything. Without an orderly shutdown, which would take a long time."""
        self.kill()
        self.epmd.stop()

    def kill(self) -> None:
        """Ends all nodes as a power failure would."""
        self._each(Node.kill)

    def pause(self) -> None:
        """Stops every thread of all nodes. Raises ServerError."""
        self._each(Node.pause)

    def resume(self) -> None:
        """Continues after a pause."""
        self._each(Node.resume)

    def ensure_up(self) -> None:
        """Makes all nodes work. Raises ServerError."""
        # In this thread: a server ends with the thread that started it.
        for node in self.nodes:
            if node.is_running():
                node.resume()
            else:
                node.launch()
        for node in self.nodes:
            node.wait_until_up()

    def control(self, *arguments: str) -> None:
        """Runs rabbitmqctl for each node. Raises ServerError."""
        self._each(lambda node: node.control(*arguments))

    def leader_of(self, queue: str) -> Node:
        """The node with the leader of a quorum queue. Raises ServerError."""
        asked = next(node for node in self.nodes if node.is_running())
        name = asked.control("eval", LEADER % queue).strip().strip("'")
        return next(node for node in self.nodes if node.node == name)

    def _each(self, call: Callable[[Node], T]) -> list[T]:
        with ThreadPoolExecutor(NODES) as pool:
            return list(pool.map(call, self.nodes))
