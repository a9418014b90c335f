# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for the get-pip.py that ansible-test would download. The first pip comes from Python itself.

ansible-test runs it in each virtual environment that it makes: get_pip.py [pip's options] pip==VERSION, and maybe
--no-setuptools and --no-wheel, which only get-pip.py knows.
"""

from __future__ import annotations

import subprocess
import sys

# A process of its own: ensurepip makes pip blind to its configuration for the rest of the process.
subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "-qq", *arguments], check=False).returncode)
