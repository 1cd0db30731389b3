#!/bin/sh
# ours.sh PORT UP_PORT UP2_PORT WORKERS RULES_FILE|- NFT CACHE_ENTRIES DIR
#
# Becomes `smartdns run` as a plain forwarder for a benchmark: it listens on
# 127.0.0.1:PORT, asks 127.0.0.1:UP_PORT over UDP, and 127.0.0.1:UP2_PORT for the
# names under those of RULES_FILE. WORKERS is GOMAXPROCS. With NFT = 1 each answer
# is marked: there is a tunnel that leads nowhere, and the addresses of names
# under cn.test go into smartdns/direct_4. DIR is a scratch directory.
#
# SMARTDNS names the binary; without it, the one in PATH.
set -eu
port=$1 up=$2 up2=$3 workers=$4 rules=$5 nft=$6 entries=$7 dir=$8
{
	echo "[listen]"
	echo "dns = [\"127.0.0.1:$port\"]"
	echo "[side.bench]"
	echo "servers = [\"127.0.0.1:$up\"]"
	if [ "$nft" = 1 ]; then
		echo "[tunnel.bench0]"
		echo "config = \"$dir/bench0.conf\""
		echo 'device = "userspace"'
		echo "[routing]"
		echo 'table = "shared"'
	fi
	if [ "$rules" != - ]; then
		echo "[side.listed]"
		echo "servers = [\"127.0.0.1:$up2\"]"
		echo "[list.listed]"
		echo "file = \"$rules\""
	fi
	echo "[poison]"
	echo "probe = false" # these servers know every name
	echo "[decide]"
	echo 'private_ok = ["test"]'
	echo "names = ["
	[ "$rules" = - ] || echo '  { match = "list:listed", ask = "listed" },'
	[ "$nft" != 1 ] || echo '  { match = "cn.test", ask = "bench", via = "direct" },'
	echo '  { match = "*", ask = "bench" },'
	echo "]"
} >"$dir/smartdns.toml"
if [ "$nft" = 1 ]; then
	# Keys that nobody has: nothing ever answers at the other end.
	umask 077
	cat >"$dir/bench0.conf" <<CONF
[Interface]
PrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEA=
Address = 10.255.255.2/32
[Peer]
PublicKey = CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
AllowedIPs = 0.0.0.0/0
Endpoint = 127.0.0.1:9
CONF
fi
export GOMAXPROCS="$workers"
exec "${SMARTDNS:-smartdns}" run --config "$dir/smartdns.toml" --run-dir "$dir/run" --state-dir "$dir/state"
