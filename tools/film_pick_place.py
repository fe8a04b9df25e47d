"""Films some scripted episodes of the arm: python tools/film_pick_place.py FILE.gif"""

from __future__ import annotations

import sys

from PIL import Image

from calql.paper.demonstrators.pick_place import Recipe, demonstrate


def film(path: str, episodes: int = 4, size: int = 240) -> None:
    """Scripted episodes as an animated picture (GIF)."""
    recipe, pictures = Recipe(1, image_size=size), []
    for index in range(episodes):
        pictures += list(demonstrate(recipe, 0, index).observations["image"])
        pictures += pictures[-1:] * 5
    frames = [Image.fromarray(picture).quantize(64) for picture in pictures]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)


if __name__ == "__main__":
    film(*sys.argv[1:])
