"""Named task queues."""

from derecho.invocation import check_name


class Queue:
    """A named task queue; an engine works on the queues that its definitions name, and "default"."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name, "queue")

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"
