#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# What the recipes of the zoo are written with. It runs in a builder machine, a recipe after it in the same shell.
#
# D0, D1 … are the disks (blank), P0, P1 … what stands before the number of a partition; /build/NAME.tar the trees.

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

# table TYPE DISK PARTITION...: makes a partition table; each partition in the words of sfdisk.
table() {
    {
        echo "label: $1"
        printf '%s\n' "${@:3}"
    } | sfdisk --quiet --wipe never --no-tell-kernel "$2"
    blockdev --rereadpt "$2"
    udevadm settle
}

# gpt DISK PARTITION...: makes a GPT whose first partition is that of GRUB.
gpt() { table gpt "$1" 'start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649' "${@:2}"; }
mbr() { table dos "$@"; }

# Each makes a file system or swap with that UUID.
ext4() { mke2fs -q -t ext4 -U "$1" -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -J size=4 "${@:2}"; }
xfs() { mkfs.xfs -q -f -K --unsupported -m uuid="$1" "${@:2}"; }
vfat() { mkfs.vfat -i "${1/-/}" "${@:2}" >/dev/null; }
swap() { mkswap -q -U "$1" "${@:2}"; }

# at PATH DEVICE [OPTION…]: mounts DEVICE at PATH of the system that is being made.
at() {
    mkdir -p "/target$1"
    mount "${@:3}" "$2" "/target$1"
}

# fill NAME [DIRECTORY]: unpacks a tree.
fill() {
    local place=/target${2-}
    mkdir -p "$place"
    tar --extract --xattrs --xattrs-include='*' --numeric-owner --same-permissions --file "/build/$1.tar" \
        --directory "$place" --keep-directory-symlink
    if [ -d "$place/usr/bin" ]; then
        cp /usr/bin/busybox "$place/usr/bin/busybox"
        ln "$place/usr/bin/busybox" "$place/usr/bin/sh"
        ln -s ../bin/busybox "$place/usr/sbin/init"
    fi
}

# fill_plain NAME [DIRECTORY]: the same for a file system that knows neither owners nor modes.
fill_plain() {
    mkdir -p "/target${2-}"
    tar --extract --no-same-owner --no-same-permissions --file "/build/$1.tar" --directory "/target${2-}"
}

# tool COMMAND...: runs what is no part of the rescue system. It sees /build and /dev.
tool() { chroot /tools "$@"; }

# busy: whether anything is mapped or assembled.
busy() { dmsetup ls | grep -qv '^No devices' || grep -q '^md' /proc/mdstat; }

# done_: unmounts and takes down all that is there.
done_() {
    local turn name
    swapoff -a
    while mountpoint -q /target; do umount -R /target; done
    for turn in 1 2 3; do
        busy || break
        vgchange -qq --activate n || true
        for name in /dev/mapper/zoo-*; do [ ! -b "$name" ] || cryptsetup close "$name" || true; done
        mdadm --stop --scan --quiet || true
    done
    if busy; then
        echo "This cannot be taken down (turn $turn):"
        dmsetup ls
        cat /proc/mdstat
        exit 1
    fi
    sync
    dmesg --clear
}
