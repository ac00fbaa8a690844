"""Waiting for somebody outside: the workflow hands out a token, a web hook completes it, days later if need be.

python examples/callbacks.py
"""

import asyncio
from dataclasses import dataclass

import derecho
from derecho import Client, Context, Engine


@dataclass
class Payment:
    amount: int
    reference: str


class Bank:
    """Stands for an outside service that answers by calling a web hook."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[tuple[int, str]] = asyncio.Queue()


@derecho.activity
async def ask_for_payment(amount: int, token: str) -> None:
    await derecho.current_activity().resource(Bank).orders.put((amount, token))


@derecho.workflow
async def sale(ctx: Context, amount: int) -> str:
    paid = ctx.callback(Payment, timeout=3 * 86_400)
    await ask_for_payment.execute(ctx, amount, paid.token)
    payment = await paid.future
    return f"paid {payment.amount}, reference {payment.reference}"


async def web_hook(client: Client, bank: Bank) -> None:
    amount, token = await bank.orders.get()
    await client.complete(token, Payment(amount, "B-1"))
    try:
        await client.complete(token, Payment(amount, "B-1"))  # hooks are often called twice
    except derecho.CallbackClosed as exc:
        print(f"the second call: {exc}")


async def main(address: str = "memory:") -> None:
    bank = Bank()
    async with Engine(address, workflows=[sale], activities=[ask_for_payment], resources={Bank: bank}) as engine:
        handle = await engine.client.start(sale.bind(120))
        await web_hook(engine.client, bank)
        print(await handle.result(timeout=10))


if __name__ == "__main__":
    asyncio.run(main())
