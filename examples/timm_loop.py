"""AdvMask in a loader of timm, which normalises and augments the masked images further."""

import sys

import torch
from plain_loop import images, network, train
from timm.data import create_loader
from torch import nn

import augmentations
import bench


def main(folder: str | None = None, epochs: int = 3) -> None:
    torch.manual_seed(0)
    dataset, classes = images(folder)
    victim = network(classes)
    train(victim, dataset, epochs=5)
    points = bench.find_points(victim, dataset, attack="advmask(steps=10)", eps=0.5)

    side = dataset[0][0].shape[-1]
    train_set = augmentations.WithMask(
        dataset, augmentations.AdvMask.preset("", side), points, epochs=epochs
    )
    loader = create_loader(
        train_set,  # timm's pipeline is applied after the mask, so it moves no point
        (3, side, side),
        batch_size=64,
        is_training=True,
        hflip=0.5 if folder else 0.0,
        scale=(0.8, 1.0),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    model = network(classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(epochs):
        for batch, targets in loader:
            loss = nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print("loss:", float(loss.detach()))


if __name__ == "__main__":
    main(*sys.argv[1:2])
