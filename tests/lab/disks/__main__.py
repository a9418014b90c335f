# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the zoo, or those images that are named; with --list says what there is."""

from __future__ import annotations

import argparse
import sys

from lifeboat_lab.images import LabError

from .build import ensure
from .zoo import IMAGES


def main() -> None:
    """Build what is not in the cache."""
    parser = argparse.ArgumentParser(prog="disks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say what there is, and build nothing")
    parser.add_argument("names", nargs="*", metavar="IMAGE")
    arguments = parser.parse_args()
    if arguments.list:
        for image in IMAGES.values():
            print(f"{image.name:20} {image.story}")
        return
    if unknown := set(arguments.names) - set(IMAGES):
        parser.error(f"There is no image {', '.join(sorted(unknown))}.")
    try:
        ensure([IMAGES[name] for name in arguments.names or IMAGES], IMAGES, lambda line: print(line, flush=True))
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
