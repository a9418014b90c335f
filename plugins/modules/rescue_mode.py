#!/usr/bin/python
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rescue_mode
short_description: Boot a server into its provider's rescue system and back
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Puts a server into its provider's rescue system, waits until that is proved to run and lets us in, and brings it back.
  - Idempotence is judged by what actually runs, and not by a flag of the provider.
  - What is changed at the provider for that (boot option, rescue key, rescue mail, interventions) is written down before,
    and is restored on leaving.
  - Interrupted runs can be repeated. The same call resumes and does not reboot twice.
  - A server that somebody else has put into rescue is used as it is, without a reboot, if we can log in to it.
extends_documentation_fragment:
  - lifeboat.rescue.attributes
  - lifeboat.rescue.attributes.action_group
  - lifeboat.rescue.attributes.controller
  - lifeboat.rescue.controller
  - lifeboat.rescue.controller.installed
  - lifeboat.rescue.controller.key
  - lifeboat.rescue.controller.reboot
  - lifeboat.rescue.controller.ovh
  - lifeboat.rescue.controller.openstack
  - lifeboat.rescue.controller.softlayer
attributes:
  idempotent:
    description: When run twice in a row with the same arguments, the second run changes nothing and says so.
    support: full
options:
  state:
    description:
      - V(present) boots the rescue system and makes sure that we can log in.
      - V(absent) boots the installed system and restores all settings. It refuses while something of the installed
        system is still mounted in the rescue system.
    type: str
    choices: [present, absent]
    default: present
  rescue:
    description:
      - Which rescue system. V(best) takes the provider's newest one for Linux, V(windows) one of Windows where the server offers it; else
        a name like V(rescue12-customer), or an id.
      - A Windows rescue system takes no key, and nobody logs in to it by SSH, so it is entered as with O(login=console).
      - Default is the host's variable C(lifeboat_rescue).
    type: str
    default: best
  login:
    description:
      - V(key) gives the provider the public key beforehand. Where it takes none, a password is used as with V(password).
      - V(password) logs in once with a password (the provider's, or one sent with the call) to install the key. It is shown nowhere.
      - V(console) does not log in at all, for a rescue system without an SSH server. The provider's word is the only proof
        then, RV(running) stays V(unknown), and RV(console_url) says where to look. Leaving it needs O(force=true), because
        nobody can say whether something is still mounted.
      - Default is the host's variable C(lifeboat_login).
    type: str
    choices: [key, password, console]
    default: key
  credentials_file:
    description:
      - A file on the controller for the password that the provider gives for the rescue system, as JSON with the keys C(host),
        C(user) and C(password). It is written when the server is put into rescue, with mode 0600, in the place of whatever was
        there, and is yours to delete.
      - Use it to get the password of a Windows rescue system. With O(login=key), a password login is used instead.
      - Default is the host's variable C(lifeboat_credentials_file).
    type: path
  rescue_mail:
    description:
      - Where the provider sends its mail about this rescue. Default is as it is set at the provider.
      - Default is the host's variable C(lifeboat_rescue_mail).
    type: str
  hold_interventions:
    description:
      - Asks the provider not to send technicians while the server does not answer. It is restored on leaving.
      - Default is the host's variable C(lifeboat_hold_interventions).
    type: bool
    default: true
  reboot_method:
    description:
      - V(soft) asks the running system by SSH, V(hard) the provider, V(auto) tries the first and falls back to the second.
      - Default is the host's variable C(lifeboat_reboot_method).
    type: str
    choices: [auto, soft, hard]
    default: auto
  installed_host_keys:
    description:
      - The installed system's public host keys, as read from its disk, by which it is known again.
      - Default is the host's variable C(lifeboat_installed_host_keys).
    type: list
    elements: str
    default: []
  proof_port:
    description:
      - A TCP port of the installed system that the rescue system does not listen on, such as V(443).
      - With O(state=absent), the server counts as back when this port answers. Without it SSH must answer.
      - Default is the host's variable C(lifeboat_proof_port).
    type: int
  force:
    description:
      - With O(state=absent), leave although something is mounted, or although nobody can say so. What is not written is lost.
        Where an earlier call has ended without proof that the installed system runs, it is waited for once more, for a minute at
        least, and then rebooted.
      - With O(state=present), pin the rescue system's host key anew when it has changed, and take the server over from a
        session that another controller began. A rescue system that must be rebooted for it is, whatever is mounted there.
    type: bool
    default: false
seealso:
  - module: lifeboat.rescue.rescue_mode_info
  - module: lifeboat.rescue.netboot
  - module: lifeboat.rescue.reboot
"""

EXAMPLES = r"""
# On the command line:  ansible web1 -m lifeboat.rescue.rescue_mode -a state=present

- name: Put a lost server into rescue
  hosts: web1
  gather_facts: false
  vars:
    lifeboat_provider: ovh_dedicated
    lifeboat_server: ns100001.ip-192-0-2.eu
  tasks:
    - name: Enter rescue
      lifeboat.rescue.rescue_mode:
        state: present
      register: entered

    - name: Show how to log in
      ansible.builtin.debug:
        var: entered.login.command

- name: Bring it back
  hosts: web1
  gather_facts: false
  vars:
    lifeboat_provider: ovh_dedicated
    lifeboat_server: ns100001.ip-192-0-2.eu
  tasks:
    - name: Leave rescue
      lifeboat.rescue.rescue_mode:
        state: absent
"""

RETURN = r"""
provider:
  description: The provider.
  returned: success
  type: str
  sample: ovh_dedicated
server:
  description: The server's name at its provider.
  returned: success
  type: str
  sample: ns100001.ip-192-0-2.eu
address:
  description: Where it answers.
  returned: success
  type: str
  sample: 192.0.2.10
armed:
  description:
    - Whether the provider boots the rescue system next. Null where it does not tell.
    - In check mode with O(state=present), whether it would.
  returned: success
  type: bool
running:
  description: Which system answers now, V(rescue), V(installed) or V(unknown), told from evidence.
  returned: success
  type: str
  sample: rescue
fresh:
  description: Whether what answers booted after our request. Null where nothing was requested, or it does not say.
  returned: success
  type: bool
evidence:
  description: What was seen and heard.
  returned: success
  type: dict
  contains:
    reason:
      description: Why RV(running) says what it says.
      type: str
    banner:
      description: The banner of the SSH server, or null.
      type: str
    connect_error:
      description: Why there is no banner, for example V(connection refused); else null.
      type: str
    logged_in:
      description: Whether we could log in.
      type: bool
    host_key:
      description: The host key's fingerprint.
      type: str
    boot_id:
      description: The kernel's boot id, new at each boot.
      type: str
    uptime:
      description: Seconds since the boot.
      type: float
    hostname:
      description: The system's own name.
      type: str
    kernel:
      description: The kernel's release.
      type: str
    os:
      description: The system's name for people.
      type: str
    root_fstype:
      description: Type of the root file system.
      type: str
    root_source:
      description: Device of the root file system.
      type: str
boot:
  description:
    - The boot option that is set. Null where the provider does not tell.
    - In check mode with O(state=present), the one that would be.
  returned: success
  type: dict
  sample: {"id": "230242", "kind": "rescue", "name": "rescue12-customer", "description": "Customer rescue system (Debian-12-based)"}
login:
  description: How to log in to the rescue system. Null where it does not run.
  returned: success
  type: dict
  contains:
    user:
      description: The user.
      type: str
    host:
      description: The address.
      type: str
    port:
      description: The port.
      type: int
    private_key_file:
      description: The private key on the controller. Null where it is in an agent.
      type: str
    known_hosts_file:
      description: The file on the controller that holds the pinned host key.
      type: str
    proxy_command:
      description: The command by which it is reached through a bastion, else null.
      type: str
    command:
      description: A command line that logs in.
      type: str
tasks:
  description: Ids of the provider's tasks that this session began.
  returned: success
  type: list
  elements: str
timings:
  description: Seconds since the start after which each step was reached (C(armed), C(rescue), C(restored), C(installed), C(total)).
  returned: success
  type: dict
session:
  description:
    - The session that is open, with its C(id), C(phase), C(folder), C(started_at), and C(requested_at), when the reboot
      that is under way was requested (null where none is). Null where there is none.
  returned: success
  type: dict
found:
  description:
    - Where the server was put in rescue by somebody else, since when (C(since), UTC) and by whom (C(by)), each as far as it can be told.
      Null where it was not.
  returned: success
  type: dict
console_url:
  description: Where a person can look at the server's screen, where the provider tells it and the server was just put into rescue.
  returned: success
  type: str
failure:
  description: What failed (C(code), C(message)), what state the server is in (C(state)), what to do next (C(todo)), and C(details).
  returned: failure
  type: dict
"""

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._entry import run_module


def main():
    run_module("rescue_mode")


if __name__ == "__main__":
    main()
