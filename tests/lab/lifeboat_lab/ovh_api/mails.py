# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mail that tells how to log in to a rescue system."""

from __future__ import annotations

import html
import typing as t

from .account import MailOptions

if t.TYPE_CHECKING:
    from .api import OvhApi


class Wording(t.NamedTuple):
    """The texts of such a mail in one language: its subject, its first line, and what stands before each colon."""

    subject: str
    opening: str
    address: str
    user: str
    password: str


def send_rescue_mail(api: OvhApi, name: str, ip: str, password: str | None, options: MailOptions, wording: Wording,
                     other: str, noise: Wording, to: str | None = None) -> None:
    """Send the mail of one server, after the unrelated ones.

    other: another server, which has a mail like it, worded as noise. to: default is the account's own address.
    """
    for number in range(options.unrelated):
        if number % 2:
            api.add_mail(f"[{api.nic}] [{name}] Your server's monitoring", "Monitoring was changed.")
        else:
            lines = [f" - {noise.address}: 192.0.2.99", f" - {noise.user}: root", f" - {noise.password}: not-yours"]
            api.add_mail(f"[{api.nic}] [{other}] {noise.subject}", "<br>\n".join(lines))
    with api.lock:
        link = password
        if password and not options.plain_password:
            link = f"https://www.ovh.com/manager/secret/#?id={api._new_secret(password)}"
    lines = [wording.opening, f" - {wording.address}: {ip}", f" - {wording.user}: root"]
    if link:
        lines.append(f" - {wording.password}: {link}")
    to = to or api.account_mail
    api.add_mail(f"[{api.nic}] [{name}] {wording.subject}", "<br>\n".join(map(html.escape, lines)), to=to,
                 in_history=to == api.account_mail or not options.custom_hidden)
