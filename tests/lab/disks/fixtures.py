# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The zoo for pytest: `pytest_plugins = "disks.fixtures"`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifeboat_lab.images import ensure as ensure_lab

from .build import ensure
from .session import Zoo
from .zoo import IMAGES


@pytest.fixture(scope="module")
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    """A machine to plug images into."""
    lab = ensure_lab(print)
    # those that the chosen tests name, at once; others are built when they are asked for
    named = {item.callspec.params["name"] for item in request.session.items
             if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params}
    ensure([image for name, image in IMAGES.items() if name in named], IMAGES, print, lab)
    with Zoo(tmp_path_factory.mktemp("zoo"), lab, print) as zoo:
        yield zoo
