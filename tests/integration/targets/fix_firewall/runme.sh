#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The module on a real tree, with every firewall that it knows. Whether SSH gets in is judged by another way than the
# module's own: a client in a second network namespace, over a pair of virtual network cards, talks to the tree's sshd.
# All mounts and networks are in namespaces of their own.

set -eu -o pipefail

if [ "${1:-}" != inside ]; then
    exec unshare --mount --propagation private bash "$0" inside "$@"
fi
shift

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/lifeboat.XXXXXX)

clean_up() {
    umount --recursive --lazy "$work/tree" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

bash "$here/../setup_target_tree/make_tree.sh" "$work/tree"
for each in dev proc sys; do mount --rbind "/$each" "$work/tree/$each"; done
mkdir -p "$work/tree/etc/systemd/system/sysinit.target.wants" "$work/tree/etc/iptables" "$work/tree/etc/nftables.d"
cp -a "$work/tree/etc" "$work/etc.fresh"

export ANSIBLE_LOCALHOST_WARNING=false
timeout 900 ansible-playbook -i localhost, -c local "$here/test.yml" "$@" \
    -e "work=$work tree=$work/tree ansible_python_interpreter=$(command -v python3)"
