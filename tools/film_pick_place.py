"""Records scripted episodes of the arm: python tools/film_pick_place.py FILE.gif"""

from __future__ import annotations

import sys

from PIL import Image

from calql.paper.demonstrators.pick_place import Recipe, demonstrate


def film(path: str, episodes: int = 4, size: int = 240) -> None:
    """Scripted episodes as an animated GIF."""
    recipe, images = Recipe(1, image_size=size), []
    for index in range(episodes):
        images += list(demonstrate(recipe, 0, index).observations["image"])
        images += images[-1:] * 5
    frames = [Image.fromarray(image).quantize(64) for image in images]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)


if __name__ == "__main__":
    film(*sys.argv[1:])
