#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The plugin against a real sshd, real namespaces and a real tree. All of it lives in a mount namespace of its own, so
# that nothing stays mounted on the machine however this ends. It is a slave, so that it keeps nothing else mounted.

set -eu -o pipefail

if [ "${1:-}" != inside ]; then
    # A namespace can be kept only in one with a lower number, and Linux 6.18 counts per processor: stay on one.
    processor=$(taskset --cpu-list --pid $$ | sed 's/.*: \([0-9]*\).*/\1/')
    exec taskset --cpu-list "$processor" unshare --mount --propagation slave bash "$0" inside "$@"
fi
shift

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/lifeboat.XXXXXX) # short: the paths of sockets may have no more than 108 bytes
sshd_pid=

clean_up() {
    local socket
    for socket in "$work"/cp/*; do
        [ ! -S "$socket" ] || ssh -o ControlPath="$socket" -O exit 127.0.0.1 2>/dev/null || true
    done
    [ -z "$sshd_pid" ] || kill "$sshd_pid" 2>/dev/null || true
    # The mounts go with the namespace; the directory is seen empty from outside of it.
    umount --lazy "$work"
    rmdir "$work"
}
mount -t tmpfs -o mode=0700 lifeboat "$work"
mount --make-shared "$work" # as systemd has it: what is not cut off from here comes back here
trap clean_up EXIT

echo "--- the tree: this machine's own files, with its changes kept aside"
mkdir "$work"/{tree,upper,scratch,cp,outside,fetched,bare}
mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" lifeboat-tree "$work/tree"
rm -rf "$work/tree/root/.ansible" "$work/tree/run/lifeboat"
# What a hostile tree would do: absolute links to a place that means something else outside. Ansible puts its own files
# through the second one. The same name has other content inside and outside.
echo "of the rescue system" >"$work/outside/secret"
mkdir -p "$work/tree$work/outside"
echo "of the tree" >"$work/tree$work/outside/secret"
ln -s "$work/outside" "$work/tree/hostile"
ln -s "$work/outside" "$work/tree/root/.ansible"

echo "--- an SSH server"
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p /run/sshd
cat >"$work/sshd_config" <<END
ListenAddress 127.0.0.1:$port
HostKey $work/host_key
AuthorizedKeysFile $work/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
# Lets bash skip root's .bashrc, which is this machine's affair.
SetEnv SHLVL=3
END
"$(command -v sshd)" -D -f "$work/sshd_config" -E "$work/sshd.log" &
sshd_pid=$!
printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$work/host_key.pub")" >"$work/known_hosts"

echo "--- a mount namespace for the tree, as a session makes one"
mkdir "$work/ns"
mount --bind "$work/ns" "$work/ns"
mount --make-private "$work/ns"
touch "$work/ns/target.ns" "$work/ns/stale.ns"
# shellcheck disable=SC2016
unshare --mount="$work/ns/target.ns" --propagation slave sh -ec \
    'mount --rbind "$0" "$0"; for d in dev proc sys run; do mount --rbind "/$d" "$0/$d"; done; mount --move "$0" /' "$work/tree"
echo "$work/tree" >"$work/ns/target.ns.root"

head -c 20000000 /dev/urandom >"$work/20MB"
if command -v dpkg-deb >/dev/null; then
    mkdir -p "$work/deb/DEBIAN"
    printf '%s\n' 'Package: lifeboat-test' 'Version: 1.0' 'Architecture: all' 'Maintainer: nobody <nobody@localhost>' \
        'Description: test' >"$work/deb/DEBIAN/control"
    dpkg-deb --build "$work/deb" "$work/lifeboat-test.deb" >/dev/null
fi

cat >"$work/inventory.yml" <<END
all:
  vars:
    ansible_host: 127.0.0.1
    ansible_port: $port
    ansible_user: root
    ansible_ssh_private_key_file: $work/key
    ansible_ssh_common_args: -o UserKnownHostsFile=$work/known_hosts -o IdentitiesOnly=yes
    ansible_ssh_retries: 0
    ansible_python_interpreter: /usr/bin/python3
  hosts:
    rescue:
      ansible_connection: ansible.builtin.ssh
    target:
      ansible_connection: lifeboat.rescue.chroot_ssh
      ansible_chroot_path: $work/tree
END
export ANSIBLE_INVENTORY="$work/inventory.yml"
export ANSIBLE_SSH_CONTROL_PATH_DIR="$work/cp"
# Long enough for a slow machine between two tasks; clean_up ends the connection, and a killed run leaves it no longer.
export ANSIBLE_SSH_ARGS="-o ControlMaster=auto -o ControlPersist=20s -F none"
export ANSIBLE_HOST_KEY_CHECKING=true
# Must not matter: files go inside the tree whatever is asked for.
export ANSIBLE_SSH_TRANSFER_METHOD=sftp

python3 - "$port" "$sshd_pid" <<'END'
import os, socket, sys, time
deadline = time.monotonic() + 30
while True:
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).close()
        break
    except OSError:
        os.kill(int(sys.argv[2]), 0)  # raises when sshd is gone
        if time.monotonic() > deadline:
            raise
        time.sleep(0.02)
END

cp "$here/files/script.sh" "$work/a \$(b);c.sh"

mounts() { cut -d' ' -f3- /proc/self/mountinfo | grep -F " $work" | sort; }
mounts_before=$(mounts)

# With pipelining there is no terminal, and files are carried only where a task is about files.
features() { # pipelining, namespace
    echo "--- features: pipelining $1, namespace ${2:-for each command}"
    ANSIBLE_PIPELINING=$1 timeout 300 ansible-playbook "$here/features.yml" "${@:3}" \
        -e "work=$work ansible_chroot_namespace='$2'"
}
features false "" "$@"
features true "$work/ns/target.ns" "$@"

echo "--- executions"
# As mount_and_chroot adds the host: the variable is that of ssh.
count() {
    ANSIBLE_PIPELINING=0 timeout 120 ansible target "$@" -e "work=$work ansible_chroot_namespace=$work/ns/target.ns" -m ansible.builtin.command -a true \
        -vvv | grep -c 'SSH: EXEC'
}
[ "$(count "$@" -e ansible_ssh_pipelining=true)" = 1 ]
[ "$(count "$@" -e ansible_ssh_pipelining=false)" -gt 1 ]

echo "--- errors"
timeout 120 ansible-playbook "$here/errors.yml" "$@" -e "work=$work"

echo "--- what is left"
[ "$(mounts)" = "$mounts_before" ] || { diff <(echo "$mounts_before") <(mounts); exit 1; }
[ "$(ls -A "$work/outside")" = secret ]
[ "$(cat "$work/outside/secret")" = "of the rescue system" ]
# And they did get where they were sent.
[ -e "$work/tree$work/outside/planted" ]
[ -d "$work/tree$work/outside/tmp" ]
echo "chroot_ssh: all is well"
