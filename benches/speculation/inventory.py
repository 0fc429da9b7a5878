"""The stock of a small shop: items, orders, and what has to be bought."""
import csv
import dataclasses
import datetime
import pathlib


class OutOfStock(Exception):
    """There are fewer pieces of an item than an order asks for."""


@dataclasses.dataclass
class Item:
    name: str
    price: int
    count: int = 0
    least: int = 5
    shelf: str = ""

    def is_scarce(self):
        return self.count < self.least

    def value(self):
        return self.price * self.count

    def take(self, count):
        if count > self.count:
            raise OutOfStock(f"{count} pieces of {self.name} are asked for, {self.count} are there")
        self.count -= count

    def put(self, count):
        self.count += count


@dataclasses.dataclass
class Line:
    item: Item
    count: int

    def total(self):
        return self.item.price * self.count


@dataclasses.dataclass
class Order:
    number: int
    customer: str
    day: datetime.date
    lines: list[Line] = dataclasses.field(default_factory=list)
    is_paid: bool = False

    def add(self, item, count):
        for line in self.lines:
            if line.item is item:
                line.count += count
                return
        self.lines.append(Line(item, count))

    def total(self):
        return sum(line.total() for line in self.lines)

    def pay(self, amount):
        if amount < self.total():
            raise ValueError(f"order {self.number} costs {self.total()}, {amount} is too little")
        self.is_paid = True
        return amount - self.total()


class Inventory:
    """All items, by their names."""

    def __init__(self):
        self.items = {}
        self.orders = []
        self.history = []

    def add_item(self, name, price, count=0, least=5, shelf=""):
        if name in self.items:
            raise ValueError(f"{name} is there already")
        item = Item(name, price, count, least, shelf)
        self.items[name] = item
        self.note(f"new item {name}")
        return item

    def remove_item(self, name):
        item = self.items.pop(name)
        self.note(f"removed {item.name}")
        return item

    def find(self, name):
        if name not in self.items:
            raise KeyError(f"there is no item {name}")
        return self.items[name]

    def on_shelf(self, shelf):
        return [item for item in self.items.values() if item.shelf == shelf]

    def restock(self, name, count):
        item = self.find(name)
        item.put(count)
        self.note(f"restock of {count} pieces of {name}")
        return item.count

    def restock_all(self, counts):
        for name, count in counts.items():
            self.restock(name, count)

    def order(self, customer, wanted, day=None):
        order = Order(len(self.orders) + 1, customer, day or datetime.date.today())
        for name, count in wanted.items():
            item = self.find(name)
            item.take(count)
            order.add(item, count)
        self.orders.append(order)
        self.note(f"order {order.number} of {customer}")
        return order

    def cancel(self, number):
        order = self.orders[number - 1]
        if order.is_paid:
            raise ValueError(f"order {number} has been paid")
        for line in order.lines:
            line.item.put(line.count)
        order.lines.clear()
        self.note(f"order {number} cancelled")

    def unpaid(self):
        return [order for order in self.orders if not order.is_paid]

    def revenue(self, first, last):
        days = [order for order in self.orders if first <= order.day <= last]
        return sum(order.total() for order in days if order.is_paid)

    def value(self):
        return sum(item.value() for item in self.items.values())

    def scarce(self):
        return [item for item in self.items.values() if item.is_scarce()]

    def shopping_list(self):
        wanted = {}
        for item in self.scarce():
            wanted[item.name] = 2 * item.least - item.count
        return wanted

    def restock_scarce(self):
        self.restock_all(self.shopping_list())

    def note(self, text):
        self.history.append((datetime.datetime.now(), text))

    def save(self, path):
        with pathlib.Path(path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "price", "count", "least", "shelf"])
            for item in self.items.values():
                writer.writerow([item.name, item.price, item.count, item.least, item.shelf])

    def load(self, path):
        with pathlib.Path(path).open(newline="") as file:
            for row in csv.DictReader(file):
                self.add_item(
                    row["name"],
                    int(row["price"]),
                    int(row["count"]),
                    int(row["least"]),
                    row["shelf"],
                )


def report(inventory):
    lines = [f"{len(inventory.items)} items worth {inventory.value()}"]
    for item in sorted(inventory.items.values(), key=lambda item: item.name):
        mark = " (scarce)" if item.is_scarce() else ""
        lines.append(f"{item.name}: {item.count} at {item.price}{mark}")
    for order in inventory.unpaid():
        lines.append(f"order {order.number} of {order.customer}: {order.total()} unpaid")
    return "\n".join(lines)


def main():
    inventory = Inventory()
    inventory.add_item("lamp", 2500, 4, shelf="A")
    inventory.add_item("rope", 300, 40, least=20, shelf="B")
    inventory.add_item("kettle", 1800, 7, shelf="A")
    inventory.restock("lamp", 6)
    order = inventory.order("Ada", {"lamp": 2, "rope": 10})
    order.pay(8000)
    inventory.order("Grace", {"kettle": 3})
    inventory.restock_scarce()
    print(report(inventory))


if __name__ == "__main__":
    main()
