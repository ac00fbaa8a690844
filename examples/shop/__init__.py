"""A small shop that stands for the outside world: stock, payments and parcels, in a process and a database of its own.

    rules     what it sells, which cards are declined, where no parcel goes
    ledger    its SQLite file: every call that came in, every effect that it had
    service   the HTTP server: `python -m shop.service LEDGER`
    client    what an application uses to call it

It knows nothing of Derecho. It does what good payment services do: a call carries an idempotency key, and a key that
was seen before is answered with its first answer.
"""
