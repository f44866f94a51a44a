import unittest

from basket import discount, split, subtotal


class BasketTest(unittest.TestCase):
    def test_subtotal(self) -> None:
        self.assertEqual(subtotal([(2, 150), (1, 999)]), 1_299)

    def test_no_discount_below_the_limit(self) -> None:
        self.assertEqual(discount(9_999), 0)

    def test_discount_from_the_limit_on(self) -> None:
        self.assertEqual(discount(10_000), 1_000)

    def test_shares_add_up(self) -> None:
        self.assertEqual(split(1_000, 3), [334, 333, 333])


if __name__ == "__main__":
    unittest.main()
