# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way into a tree, with the real sh, nsenter, unshare and chroot."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from ansible_collections.lifeboat.rescue.plugins.connection.chroot_ssh import PATH, REMEDIES, wrap

# Gives the tree $0 this machine's programs and runs a shell in it as sshd would. Inside a user namespace, where an
# ordinary user may do the same as root.
INSIDE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", """
for d in usr bin sbin lib lib64; do [ -L "/$d" ] || [ ! -d "/$d" ] || mount --rbind "/$d" "$0/$d"; done
exec "$1" -c "$2"
"""]

OWN_NAMESPACE = "/proc/self/ns/mnt"


def can_make_namespaces():
    if not sys.platform.startswith("linux"):
        return False
    try:
        return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False,
                              stderr=subprocess.DEVNULL, timeout=30).returncode == 0
    except FileNotFoundError:
        return False


needs_namespaces = pytest.mark.skipif(not can_make_namespaces(), reason="no user namespaces on this machine")


@pytest.fixture
def tree(tmp_path):
    """A small tree, at a path that a shell would take apart."""
    path = tmp_path / "a 'tree' $HOME"
    for name in ("dev", "proc", "sys", "run"):
        (path / name).mkdir(parents=True)
    for name in ("usr", "bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (path / name).symlink_to(os.readlink(f"/{name}"))
        else:
            (path / name).mkdir()
    (path / "mark").write_text("the tree\n")
    return path


def outside(tree, script, shell="/bin/sh"):
    """Run a shell script outside of the tree, where the tree has programs."""
    return subprocess.run([*INSIDE, tree, shell, script], capture_output=True, text=True, check=False, timeout=60)


def run(tree, command, namespace="", **options):
    """Run a command in the tree."""
    return outside(tree, wrap(command, str(tree), namespace, **options))


@pytest.fixture(params=["", OWN_NAMESPACE], ids=["namespace for each command", "namespace of the session"])
def namespace(request):
    return request.param


@needs_namespaces
@pytest.mark.parametrize("text", [
    "two  words", "it's", '"', "$HOME `id` $(id)", "\\n \\", "two\nlines\n", "", "é €", "*", "!x", "-n", "%s", "~root",
])
@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_the_command_arrives_as_it_was(tree, namespace, shell, text):
    path = shutil.which(shell)
    if not path:
        pytest.skip(f"no {shell} on this machine")
    quoted = "'" + text.replace("'", "'\\''") + "'"
    done = outside(tree, wrap(f"printf '[%s]' {quoted}", str(tree), namespace), path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"[{text}]", "")


@needs_namespaces
@pytest.mark.parametrize("rc", [0, 1, 2, 125, 126, 127, 255])
def test_the_exit_code_arrives_as_it_was(tree, namespace, rc):
    assert run(tree, f"exit {rc}", namespace).returncode == rc


@needs_namespaces
def test_standard_input_arrives_as_it_was(tree, namespace):
    data = bytes(range(256)) * 1000
    done = subprocess.run([*INSIDE, tree, "/bin/sh", wrap("cat", str(tree), namespace)], input=data, check=True,
                          capture_output=True, timeout=60)
    assert done.stdout == data


@needs_namespaces
def test_no_shell_stays_behind_outside(tree, namespace):
    done = run(tree, "echo $PPID", namespace)
    assert done.stdout == f"{os.getpid()}\n"  # all that was on the way became the shell in the tree


@needs_namespaces
def test_the_root_is_the_tree(tree, namespace):
    done = run(tree, "pwd; cat /mark ../../mark; ls -d /root", namespace)
    assert done.stdout == "/\nthe tree\nthe tree\n"
    assert done.returncode == 2


@needs_namespaces
def test_the_system_s_directories_are_there_for_a_command(tree):
    done = run(tree, "readlink /proc/self/exe; test -c /dev/null && test -d /sys/class && echo all")
    assert done.stdout.splitlines()[1:] == ["all"], done.stderr


@needs_namespaces
@pytest.mark.parametrize(("namespace", "same"), [(OWN_NAMESPACE, True), ("", False), ("/no/such/file", False)])
def test_a_namespace_of_the_session_is_entered_and_not_copied(tree, namespace, same):
    which = "readlink /proc/self/ns/mnt"
    script = f'mount --rbind /proc "$PWD/proc"; {which}; {wrap(which, str(tree), namespace)}'
    around, inside = outside(tree, f"cd {shlex.quote(str(tree))}; {script}").stdout.split()
    assert (around == inside) is same


@needs_namespaces
@pytest.mark.parametrize("said", ["", "/elsewhere"])
def test_where_the_tree_is_the_root_already_no_chroot_is_made(tree, said, tmp_path):
    """As in storage_mount's namespace. What is said of another tree does not count."""
    file = tmp_path / "target.ns"
    file.symlink_to(OWN_NAMESPACE)
    (tmp_path / "target.ns.root").write_text(f"{said or tree}\n")
    done = outside(tree, wrap("cat /mark", str(tree), str(file)))
    assert done.stdout == ("the tree\n" if said else "")


@needs_namespaces
def test_a_shell_that_is_not_posix_is_given_one_command(tree):
    command = wrap("cat /mark", str(tree), "", posix=False)
    assert command.startswith("exec /bin/sh -c ") and outside(tree, command).stdout == "the tree\n"


@needs_namespaces
def test_nothing_is_left_mounted(tree):
    mounts = "cut -d' ' -f3-5 /proc/self/mountinfo | sort"
    # As systemd has it: what is mounted in a copy of the namespace comes back, unless the copy is cut off.
    command = wrap("test -c /dev/null", str(tree), "")
    done = outside(tree, f"mount --make-rshared /; {mounts}; ({command}) && echo; {mounts}")
    before, after = done.stdout.split("\n\n")
    assert before.splitlines() == after.splitlines()


@needs_namespaces
def test_a_link_in_place_of_a_mount_point_is_not_followed(tree):
    (tree / "elsewhere").mkdir()
    (tree / "dev").rmdir()
    (tree / "dev").symlink_to(tree / "elsewhere")  # there seen from outside, where the mounting is done
    done = run(tree, "while read -r a b c d where e; do echo $where; done < /proc/self/mountinfo; ls /elsewhere")
    mounted = done.stdout.splitlines()
    assert "/proc" in mounted and "/sys" in mounted, done.stderr
    assert not [where for where in mounted if where.startswith("/elsewhere")] and "null" not in mounted


@needs_namespaces
def test_the_environment(tree, namespace):
    env = {"LC_ALL": "C", "QUOTED": "it's $HOME\n2"}
    done = run(tree, 'printf "%s|" "$PATH" "$LC_ALL" "$QUOTED"', namespace, env=env)
    assert done.stdout == f"{PATH}|C|it's $HOME\n2|"
    assert run(tree, 'echo "$PATH"', namespace, env={"PATH": "/sbin"}).stdout == "/sbin\n"


@needs_namespaces
def test_escalation_comes_before_all_else(tree):
    """Nothing of the tree or the namespace is looked at by the unprivileged user."""
    done = run(tree, "echo $WAY", OWN_NAMESPACE, escalation="env 'WAY=a b'")
    assert done.stdout == "a b\n"


@needs_namespaces
@pytest.mark.parametrize(("path", "namespace", "remedy"), [
    ("/nowhere", "", "mounted there"),
    ("/etc/passwd", "", "mounted there"),
    ("/usr/share", "", "mounted there"),
    ("/nowhere", "/etc/passwd", "namespace is no longer there"),
])
def test_what_the_tools_say_has_a_remedy(tree, path, namespace, remedy):
    done = outside(tree, wrap(":", path, namespace))
    assert done.returncode in (1, 125, 126, 127)
    assert remedy in next(text for pattern, text in REMEDIES if re.search(pattern, done.stderr))
