"""What a basket costs. Amounts are in cents."""


def subtotal(lines: list[tuple[int, int]]) -> int:
    """The sum over lines of a quantity and a price."""
    return sum(quantity * price for quantity, price in lines)


def discount(cents: int) -> int:
    """A tenth off from 100.00 on, rounded down."""
    return cents // 10 if cents > 10_000 else 0


def split(cents: int, people: int) -> list[int]:
    """Shares that add up to the whole and differ by a cent at most, the larger ones first."""
    return [cents // people] * people
