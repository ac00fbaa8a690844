"""Memory: where runs, histories and queues are kept. Each store implements `derecho.journal.store.Store`."""

from derecho.errors import StoreError
from derecho.journal.store import Store


def open_store(url: str) -> Store:
    """A store by its address: `memory:`, `sqlite:///orders.db`. Raises StoreError for an address nobody knows."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        from derecho.stores.memory import MemoryStore

        return MemoryStore()
    raise StoreError(f"no store has the address {url!r}: use memory: or sqlite:///file.db")
