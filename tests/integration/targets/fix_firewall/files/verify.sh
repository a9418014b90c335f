#!/usr/bin/env bash
# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# verify.sh TREE PORT COMMAND: starts the tree's sshd and then, by COMMAND (run inside the tree), its firewall, in a
# network namespace of its own. Prints whether a client in another one hears the sshd: "4 in 6 out".

set -eu -o pipefail
tree=$1 port=$2 command=$3

if [ "${4:-}" != inside ]; then
    exec timeout 60 unshare --net bash "$0" "$tree" "$port" "$command" inside
fi

exec 3< <(exec unshare --net sh -c 'echo $$; exec sleep 60')
read -r -u 3 client
"$(command -v chroot)" "$tree" /usr/sbin/sshd -D -p "$port" -o PidFile=none &
sshd=$!
trap 'kill "$client" "$sshd"' EXIT

there=(nsenter --net="/proc/$client/ns/net")
ip link add eth0 type veth peer name client0 netns "$client"
ip link set lo up
ip link set eth0 up
"${there[@]}" ip link set client0 up
ip address add 5.6.7.8/24 dev eth0
ip address add 2600::5678/64 dev eth0 nodad
"${there[@]}" ip address add 5.6.7.9/24 dev client0
"${there[@]}" ip address add 2600::5679/64 dev client0 nodad

# hears FAMILY: whether the client gets the host key of the sshd.
hears() {
    local address=5.6.7.8
    [ "$1" = 4 ] || address=2600::5678
    [ "$("${there[@]}" ssh-keyscan -T 2 -t ed25519 -p "$port" "$address" 2>/dev/null)" ]
}

# Without a firewall it must, as soon as sshd is up.
for family in 4 6; do
    tries=0
    until hears "$family"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || { echo "no sshd over IPv$family even without a firewall"; exit 1; }
    done
done
chroot "$tree" sh -ec "$command" >&2
for family in 4 6; do
    if hears "$family"; then echo "$family in"; else echo "$family out"; fi
done | xargs
