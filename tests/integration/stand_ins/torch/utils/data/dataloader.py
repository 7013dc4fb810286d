from typing import Generic, TypeVar

T = TypeVar("T")


class DataLoader(Generic[T]):
    """Batches of one item, in order, collated by the caller's function."""

    def __init__(self, dataset, batch_size, shuffle, collate_fn, **_unused):
        assert batch_size == 1 and not shuffle
        self.dataset = dataset
        self.collate_fn = collate_fn

    def __iter__(self):
        return (self.collate_fn([item]) for item in self.dataset)
