"""Memory: where runs, histories and queues are kept. Each store implements `derecho.journal.store.Store`."""
