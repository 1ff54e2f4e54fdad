"""AdvMask in a pipeline of albumentations, whose keypoints are the adversarial points."""

import sys

import albumentations as A
import torch
from albumentations.pytorch import ToTensorV2
from plain_loop import images, network, train

import bench
from augmentations import AdvMask, WithTransform, as_albumentations


def main(folder: str | None = None, epochs: int = 3) -> None:
    torch.manual_seed(0)
    dataset, classes = images(folder)
    victim = network(classes)
    train(victim, dataset, epochs=5)
    points = bench.find_points(victim, dataset, attack="advmask(steps=10)", eps=0.5)

    side = dataset[0][0].shape[-1]
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    pipeline = A.Compose(
        [
            A.PadIfNeeded(side + side // 4, side + side // 4, border_mode=0, fill=0),
            A.RandomCrop(side, side),
            A.HorizontalFlip(p=0.5 if folder else 0.0),
            as_albumentations(AdvMask.preset("", side), mean=mean),
            A.Normalize(mean, std, max_pixel_value=1.0),  # 255 for images of bytes
            ToTensorV2(),
        ],
        keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
    )
    train_set = WithTransform(dataset, pipeline, points, epochs=epochs)
    print("loss:", train(network(classes), train_set, epochs))


if __name__ == "__main__":
    main(*sys.argv[1:2])
