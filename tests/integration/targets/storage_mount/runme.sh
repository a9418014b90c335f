#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The modules by Ansible, on a disk with a real Debian: check mode, do it, do it again, and what is left afterwards.
# All of it in a mount namespace of its own. What was left is judged here, by nothing of the collection.

set -eu -o pipefail

if [ "${1:-}" != inside ]; then
    # A namespace can be kept only in one with a lower number, and Linux 6.18 counts per processor: stay on one.
    processor=$(taskset --cpu-list --pid $$ | sed 's/.*: \([0-9]*\).*/\1/')
    exec taskset --cpu-list "$processor" unshare --mount --propagation slave bash "$0" inside "$@"
fi
shift

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
disk=
clean_up() {
    ! mountpoint --quiet /mnt/target || umount --recursive /mnt/target
    [ -z "$disk" ] || { partx --delete "$disk" || true; losetup --detach "$disk"; }
    ! mountpoint --quiet "$work/tree" || umount "$work/tree"
    rm -rf "$work"
}
trap clean_up EXIT
mount -t tmpfs tmpfs /mnt
mount -t tmpfs -o mode=0755 tmpfs /run

echo "--- a disk: MBR, root on the fifth partition, /home on xfs"
"$here/../setup_target_tree/make_tree.sh" "$work/tree"
label=$(mktemp -u lbXXXXXX)
ln -sf /bin/systemctl "$work/tree/sbin/runlevel" # as systemd-sysv has it
ln -sf /lib/systemd/systemd "$work/tree/sbin/init"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$work/tree/etc/resolv.conf"
mkdir -p "$work/tree/data"
cat >"$work/tree/etc/fstab" <<FSTAB
LABEL=$label	/	ext4	errors=remount-ro	0 1
LABEL=$label-h /home xfs defaults,nofail
LABEL=$label-gone /data ext4 nofail 0 2
tmpfs /tmp tmpfs nosuid
FSTAB
truncate --size 1420M "$work/disk.img"
sfdisk --quiet "$work/disk.img" <<TABLE
label: dos
size=320M
type=5
size=1000M
TABLE
disk=$(losetup --find --show "$work/disk.img")
partx --delete "$disk" 2>/dev/null || true
partx --add "$disk"
mkfs.xfs -q -L "$label-h" "${disk}p1"
mkfs.ext4 -q -L "$label" -d "$work/tree" "${disk}p5"
umount "$work/tree"

state() {
    cat /proc/self/mountinfo
    # Only ours: other tests may run beside this one.
    losetup --list --noheadings --raw --output NAME,BACK-FILE,RO | grep -F -e "$work/" -e "$disk" || true
    for each in "$disk" "$disk"p*; do blockdev --getro "$each"; done
    ls -A /mnt
    find /run/lifeboat -mindepth 1 ! -name storage.lock 2>/dev/null || true
}

state >"$work/before"
ANSIBLE_FORCE_COLOR=0 ansible-playbook -i localhost, -e "disk=$disk" -e "work=$work" "$here/play.yml" "$@"
state >"$work/after"
diff "$work/before" "$work/after"

e2fsck -fn "${disk}p5" >/dev/null
xfs_repair -n "${disk}p1" >/dev/null 2>&1
echo "--- all is as it was"
