"""AdvMask in a plain PyTorch loop: find points once, wrap the dataset, train."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import augmentations
import bench


def images(folder: str | None) -> tuple[Dataset, int]:
    """A dataset of (image in [0, 1], label), and its number of classes."""
    if folder is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = torch.tensor(digits.images, dtype=torch.float32)[:400, None] / 16
        return TensorDataset(pixels.expand(-1, 3, -1, -1), torch.tensor(digits.target)[:400]), 10
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True)]
    try:
        found = ImageFolder(folder, v2.Compose(steps))
    except OSError as error:
        sys.exit(f"{folder} is no folder with a subfolder of images for each class: {error}")
    return found, len(found.classes)


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes),
    )  # fmt: skip


def train(model: nn.Module, dataset: Dataset, epochs: int) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    loader = DataLoader(dataset, batch_size=64, shuffle=True)
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch, targets in loader:
            loss = nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(targets)
    return total / len(loader.dataset)


def main(folder: str | None = None, epochs: int = 3) -> None:
    torch.manual_seed(0)
    dataset, classes = images(folder)
    victim = network(classes)  # any trained network will do; better ones give better points
    train(victim, dataset, epochs=5)

    # once: the pixels that an attack changes; stored in ./results and found there again
    points = bench.find_points(victim, dataset, attack="advmask(steps=10)", eps=0.5)

    side = dataset[0][0].shape[-1]
    train_set = augmentations.WithMask(
        dataset,
        augmentations.AdvMask.preset("", side),
        points,
        padding=side // 8,  # crop and flip move the points along
        flip=folder is not None,
        epochs=epochs,  # AdvMask masks a share of the images that grows
    )
    model = network(classes)
    print("loss:", train(model, train_set, epochs))


if __name__ == "__main__":
    main(*sys.argv[1:2])
