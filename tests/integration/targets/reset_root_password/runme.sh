#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module on a real tree, and log-ins by that tree's own sshd and PAM. All mounts are in a namespace of their own.

set -eu -o pipefail

if [ "${1:-}" != inside ]; then
    exec unshare --mount --propagation private bash "$0" inside "$@"
fi
shift

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/lifeboat.XXXXXX)
sshd_pid=

clean_up() {
    [ -z "$sshd_pid" ] || kill "$sshd_pid" 2>/dev/null || true
    umount --recursive --lazy "$work/tree" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

bash "$here/../setup_target_tree/make_tree.sh" "$work/tree"
tree=$work/tree
mkdir "$work/outside"
chroot "$tree" useradd --create-home --shell /bin/sh admin
chroot "$tree" useradd --create-home --shell /bin/sh hostile
chroot "$tree" useradd --create-home --shell /bin/sh expired
rm -rf "$tree/home/hostile/.ssh"
ln -s "$work/outside" "$tree/home/hostile/.ssh"
setfattr -n user.lifeboat -v kept "$tree/etc/shadow"
setfattr -n security.selinux -v system_u:object_r:shadow_t:s0 "$tree/etc/shadow"
setfattr -n security.selinux -v unconfined_u:object_r:user_home_dir_t:s0 "$tree/home/admin"
ssh-keygen -q -t ed25519 -N '' -C first -f "$work/key"
ssh-keygen -q -t ed25519 -N '' -C second -f "$work/other"

# sshd of the tree, inside of it.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for each in dev proc; do mount --rbind "/$each" "$tree/$each"; done
printf 'PermitRootLogin yes\n' >"$tree/etc/ssh/sshd_config.d/test.conf"
chroot "$tree" /usr/sbin/sshd -D -o ListenAddress="127.0.0.1:$port" -o PidFile=none 2>"$work/sshd.log" &
sshd_pid=$!
sed "s/^/[127.0.0.1]:$port /" "$tree"/etc/ssh/ssh_host_*_key.pub >"$work/known_hosts"

export ANSIBLE_LOCALHOST_WARNING=false
timeout 600 ansible-playbook -i localhost, -c local "$here/test.yml" "$@" \
    -e "work=$work tree=$tree port=$port ansible_python_interpreter=$(command -v python3)"

echo "--- no secret in what -vvv shows"
timeout 120 ansible-playbook -vvv --diff -i localhost, -c local "$here/secret.yml" \
    -e "tree=$tree ansible_python_interpreter=$(command -v python3)" >"$work/output" || {
    cat "$work/output"
    exit 1
}
grep -q 'password set (yescrypt)' "$work/output"
hash=$(sed -n 's/^expired:\([^:]*\):.*/\1/p' "$tree/etc/shadow")
[[ $hash == \$y\$* ]] || { echo "That is no new hash: $hash"; exit 1; }
if grep -F -e "tell-nobody-1f7c" -e "$hash" "$work/output"; then
    echo "A secret was shown."
    exit 1
fi
