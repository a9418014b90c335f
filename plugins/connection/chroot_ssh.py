# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection plugin: the ssh plugin, one chroot further."""

from __future__ import annotations

DOCUMENTATION = r"""
name: chroot_ssh
short_description: Run tasks inside a directory tree of a host reached by SSH
version_added: 0.1.0
author:
  - The lifeboat.rescue contributors (@lifeboat-rescue)
description:
  - Runs any module, role or raw command inside a directory tree of a remote host, usually in the installed system that
    is mounted in a rescue system.
  - It is P(ansible.builtin.ssh#connection) with another root. All of its options are this plugin's options too, and
    both share one SSH connection to a host.
  - Files are carried through commands that run inside the tree. No path of the tree is ever opened from outside, so
    that a symbolic link in the tree cannot lead a file into the rescue system.
options:
  chroot_path:
    description:
      - The tree, as an absolute path on the remote host.
    type: str
    default: /mnt/target
    env:
      - name: LIFEBOAT_CHROOT_PATH
    ini:
      - section: lifeboat_chroot_ssh
        key: path
    vars:
      - name: ansible_chroot_path
  chroot_namespace:
    description:
      - File on the remote host that holds a mount namespace in which the tree is complete.
        M(lifeboat.rescue.storage_mount) makes one.
      - Where the file exists, each command enters that namespace. Where a file of the same name with C(.root) at its end holds
        O(chroot_path), the tree is the root there already, and no chroot is made.
      - Where it does not exist, or when this is the empty string, each command gets a mount namespace of its own with
        the remote host's C(/dev), C(/proc), C(/sys) and C(/run) bound into the tree, each only where the tree has a
        real directory of that name. Then a mount made by a task is gone when the task ends.
    type: str
    default: /run/lifeboat/target.ns
    env:
      - name: LIFEBOAT_CHROOT_NAMESPACE
    ini:
      - section: lifeboat_chroot_ssh
        key: namespace
    vars:
      - name: ansible_chroot_namespace
  chroot_escalation:
    description:
      - Command that makes the SSH user of the remote host root, for example C(sudo -n). It must not ask for anything.
      - Not needed when the SSH user is root.
      - Use C(become) for users I(inside) the tree.
    type: str
    default: ''
    env:
      - name: LIFEBOAT_CHROOT_ESCALATION
    ini:
      - section: lifeboat_chroot_ssh
        key: escalation
    vars:
      - name: ansible_chroot_escalation
  chroot_env:
    description:
      - Environment variables for each command in the tree. C(PATH) is set to the usual directories unless given here.
    type: dict
    default: {}
    vars:
      - name: ansible_chroot_env
  pipelining:
    description:
      - Whether modules run without a file being transferred first, which saves most of the executions of SSH.
      - Set by the same variables as that of P(ansible.builtin.ssh#connection).
    type: boolean
    default: false
    env:
      - name: ANSIBLE_PIPELINING
      - name: ANSIBLE_SSH_PIPELINING
    ini:
      - section: defaults
        key: pipelining
      - section: connection
        key: pipelining
      - section: ssh_connection
        key: pipelining
    vars:
      - name: ansible_pipelining
      - name: ansible_ssh_pipelining
notes:
  - Give the tree an inventory host of its own. On a host that is also used with another connection, the facts and the
    Python interpreter found there would be used for the tree.
  - O(ssh_transfer_method) and the options of C(sftp) and C(scp) have no effect.
  - A file that is copied or fetched is held in the controller's memory.
  - The remote host needs C(sh), C(chroot) and C(nsenter) or C(unshare). The tree needs C(/bin/sh) and C(cat), and
    Python for everything but M(ansible.builtin.raw) and M(ansible.builtin.script).
  - What runs in the tree runs as root of the remote host. A chroot keeps accidents in, not an attacker.
extends_documentation_fragment:
  - lifeboat.rescue.ssh_options
seealso:
  - plugin: ansible.builtin.ssh
    plugin_type: connection
  - module: lifeboat.rescue.storage_mount
"""

EXAMPLES = r"""
- name: Work in the installed system of web1 from its rescue system
  hosts: web1.rescue
  gather_facts: false
  tasks:
    - name: Add the installed system as a host
      ansible.builtin.add_host:
        name: web1.target
        ansible_connection: lifeboat.rescue.chroot_ssh
        ansible_chroot_path: /mnt/target
        ansible_host: "{{ ansible_host }}"
        ansible_user: root

    - name: Rebuild its initial RAM disks
      ansible.builtin.command: update-initramfs -u -k all
      delegate_to: web1.target
      changed_when: true
"""

import posixpath
import re
import shlex
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection.ssh import Connection as SSHConnection
from ansible.utils.display import Display

display = Display()

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Runs on the remote host, as root: $1 is the tree, $2 the file of the namespace or nothing, $3 the command.
# It decides there, so that no round trip is spent on asking, and hands over by exec, so that no shell stays behind: each
# program on the way costs a slow machine as much as the rest of a small task.
# In a namespace of storage_mount the tree is the root already, and $2.root says which tree that is. That $2.used was written
# to tells storage_mount that its job is alive.
# mount would follow a link in the place of a mount point, out of the tree: only real directories are bound over.
ENTER = """\
if [ -n "$2" ] && [ -e "$2" ]; then
true 2>/dev/null >"$2.used"
if [ -r "$2.root" ] && read -r root <"$2.root" && [ "$root" = "$1" ]; then exec nsenter --mount="$2" /bin/sh -c "$3"; fi
exec nsenter --mount="$2" chroot "$1" /bin/sh -c "$3"
fi
exec unshare --mount --propagation slave /bin/sh -c '
for d in dev proc sys run; do
if [ -d "$1/$d" ] && [ ! -L "$1/$d" ]; then mount --rbind "/$d" "$1/$d" || exit 125; fi
done
exec chroot "$1" /bin/sh -c "$2"' sh "$1" "$3"
"""

# What the way into the tree may fail with, and what to do about it. Tried in this order.
REMEDIES = (
    (r"sudo: .*password|sudo: .*terminal|not allowed to execute|not in the sudoers",
     "The command in chroot_escalation must make the SSH user root without asking."),
    (r"not permitted|[Pp]ermission denied|superuser",
     "This needs root: log in as root, or set ansible_chroot_escalation (for example to 'sudo -n')."),
    (r"nsenter: (?!failed to execute|unrecognized)",
     "The mount namespace is no longer there: run lifeboat.rescue.storage_mount with state=mounted again."),
    (r"(nsenter|unshare|chroot|mount): (command )?not found|failed to execute chroot",
     "The remote host lacks this program."),
    (r"[Ee]xec format error",
     "The tree was made for another processor than that of the remote host."),
    (r"chroot: .*(No such file|Not a directory|not found)",
     "Is the installed system mounted there? If not, run lifeboat.rescue.storage_mount with state=mounted."),
)


def wrap(command: str, path: str, namespace: str, escalation: str = "", env: t.Mapping[str, t.Any] | None = None,
         posix: bool = True) -> str:
    """Command, for the shell of the remote host, to run a shell command in the tree at path.

    posix: whether that shell can be asked to find the way by itself. Raises AnsibleError for values that cannot be right.
    """
    # "/." and "//" are the root as well, and ".." can lead there.
    if not path.startswith("/") or ".." in path.split("/") or not posixpath.normpath(path).strip("/"):
        raise AnsibleError(f"chroot_path must be an absolute path without '..' and not the root, but it is {path!r}.")
    if namespace and not namespace.startswith("/"):
        raise AnsibleError(f"chroot_namespace must be an absolute path or empty, but it is {namespace!r}.")
    variables = {"PATH": PATH, **(env or {})}
    for name in variables:
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", str(name)):
            raise AnsibleError(f"chroot_env has a key that is no name of an environment variable: {name!r}.")
    # Set by the shell in the tree, not by env: the programs on the way in are looked up in the remote host's own PATH.
    exports = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in variables.items())
    way = [posixpath.normpath(path), namespace, f"export {exports}\n{command}"]
    if posix and not escalation:
        return f"set -- {shlex.join(way)}\n{ENTER}"
    return f"exec {shlex.join([*shlex.split(escalation), '/bin/sh', '-c', ENTER, 'sh', *way])}"


class Connection(SSHConnection):
    """The ssh connection, with each command inside the tree."""

    transport = "lifeboat.rescue.chroot_ssh"

    def _wrap(self, command: str) -> str:
        return wrap(command, self.get_option("chroot_path"), self.get_option("chroot_namespace"),
                    self.get_option("chroot_escalation"), self.get_option("chroot_env"),
                    self._shell is None or self._shell.SHELL_FAMILY == "sh")

    def exec_command(self, cmd: str, in_data: bytes | None = None,
                     sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a shell command in the tree. Return its exit code, output and error output.

        Raises AnsibleConnectionFailure when the tree cannot be entered.
        """
        result: tuple[int, bytes, bytes] = super().exec_command(self._wrap(cmd), in_data=in_data, sudoable=sudoable)
        if self._may_not_have_entered(*result):
            # The command may have printed such a line itself. Whether the way in works is known when it is tried.
            rc, out, err = super().exec_command(self._wrap(":"), sudoable=False)
            if rc != 0:
                raise AnsibleConnectionFailure(self._why_not(to_native(err or out).strip() or f"exit code {rc}"))
        return result

    def _may_not_have_entered(self, rc: int, out: bytes, err: bytes) -> bool:
        """Whether the result may come from the programs on the way into the tree. Cheap, and wrong on the safe side."""
        if rc not in (1, 125, 126, 127):
            return False
        programs = ["nsenter", "unshare", "mount", "chroot", "(?:/bin/)?(?:ba|da|a|z|k)?sh"]
        programs += [re.escape(posixpath.basename(arg)) for arg in shlex.split(self.get_option("chroot_escalation"))]
        # With a terminal, which is what Ansible asks for without pipelining, errors come in the output.
        return re.search(to_bytes(f"^(?:{'|'.join(programs)}): ", errors="surrogate_or_strict"),
                         err + b"\n" + out[-4096:], re.MULTILINE) is not None

    def _why_not(self, reason: str) -> str:
        remedy = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, reason)), "")
        return f"No command can run in {self.get_option('chroot_path')} on {self.host}: {reason}. {remedy}".strip()

    # ssh's own way of carrying files by dd is not used: before ansible-core 2.20 it does not quote the path.

    def put_file(self, in_path: str, out_path: str) -> tuple[int, bytes, bytes]:
        """Copy the file in_path of the controller to out_path in the tree."""
        display.vvv(f"PUT {in_path} TO {out_path}", host=self.get_option("host"))
        try:
            with open(to_bytes(in_path, errors="surrogate_or_strict"), "rb") as source:
                data = source.read()
        except FileNotFoundError:
            raise AnsibleFileNotFound(f"file or module does not exist: {to_native(in_path)}") from None
        # Without data, ssh's standard input would stay open and cat would wait for its end.
        command = f"{'cat' if data else ':'} > {shlex.quote(out_path)}"
        return self._carry(command, f"copy {in_path} to {out_path}", data)

    def fetch_file(self, in_path: str, out_path: str) -> tuple[int, bytes, bytes]:
        """Copy the file in_path of the tree to out_path on the controller."""
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self.get_option("host"))
        result = self._carry(f"cat < {shlex.quote(in_path)}", f"fetch {in_path} to {out_path}")
        with open(to_bytes(out_path, errors="surrogate_or_strict"), "wb") as sink:
            sink.write(result[1])
        return result

    def _carry(self, command: str, what: str, data: bytes | None = None) -> tuple[int, bytes, bytes]:
        # Not sudoable, so that there is no terminal that would change the bytes.
        result = self.exec_command(command, in_data=data, sudoable=False)
        if result[0] != 0:
            raise AnsibleError(f"Cannot {to_native(what)} in {self.get_option('chroot_path')} on {self.host}: "
                               f"{to_native(result[2]).strip()}")
        return result
