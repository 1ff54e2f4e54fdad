"""AdvMask in a pipeline of torchvision v2: its crops and flips move image and points alike."""

import sys

import torch
from plain_loop import images, network, train
from torchvision.transforms import v2

import bench
from augmentations import AdvMask, WithTransform, as_torchvision


def main(folder: str | None = None, epochs: int = 3) -> None:
    torch.manual_seed(0)
    dataset, classes = images(folder)
    victim = network(classes)
    train(victim, dataset, epochs=5)
    points = bench.find_points(victim, dataset, attack="advmask(steps=10)", eps=0.5)

    side = dataset[0][0].shape[-1]
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    pipeline = v2.Compose(
        [
            v2.RandomCrop(side, padding=side // 8),
            v2.RandomHorizontalFlip(p=0.5 if folder else 0.0),
            as_torchvision(AdvMask.preset("", side), mean=mean),
            v2.Normalize(mean, std),
        ]
    )
    train_set = WithTransform(dataset, pipeline, points, epochs=epochs)
    print("loss:", train(network(classes), train_set, epochs))


if __name__ == "__main__":
    main(*sys.argv[1:2])
