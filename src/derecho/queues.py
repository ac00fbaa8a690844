"""Named task queues."""


class Queue:
    """A named task queue; an engine works on the queues that its definitions name, and "default"."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"
