#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# make_tree.sh DIRECTORY: mounts a file system that holds an installed Debian there: one with an SSH server and every
# firewall that the collection knows, none of them started at boot. What Debian gave is kept in the user's cache.
# Call it in a mount namespace of your own; the mount ends with that.

set -eu -o pipefail

tree=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat.rescue
# A change of this file makes a new one.
tar=$cache/target-tree-$(sha256sum "$0" | cut -c1-12).tar

mkdir -p "$cache"
(
    flock 9
    [ ! -e "$tar" ] || exit 0
    # ufw and iptables-persistent cannot be installed together; the files of the second one are all that it takes.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --format=tar --variant=minbase --skip=output/dev \
        --include=openssh-server,nftables,iptables,ufw,firewalld,systemd,passwd \
        --customize-hook='chroot "$1" sh -ec "
            cd /tmp
            apt-get -q download netfilter-persistent iptables-persistent
            for each in ./*.deb; do
                dpkg-deb --fsys-tarfile \$each | tar --extract --keep-directory-symlink --directory=/
            done
            rm ./*.deb"' \
        --customize-hook='rm "$1"/etc/systemd/system/multi-user.target.wants/firewalld.service' \
        --customize-hook='rm "$1"/etc/systemd/system/multi-user.target.wants/ufw.service' \
        --customize-hook='rm "$1"/etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service' \
        bookworm "$tar.new" >&2
    mv "$tar.new" "$tar"
) 9>"$cache/target-tree.lock"

mkdir -p "$tree"
truncate --size 2G "$tree.img"
mkfs.ext4 -q -F -O ^has_journal "$tree.img"
mount -o loop "$tree.img" "$tree"
tar --extract --numeric-owner --directory "$tree" --file "$tar"
mkdir -p "$tree/dev" "$tree/run/sshd"
