#!/bin/sh
# Makes what the other services let themselves in with, at the first start: a key for each sink, the gateway's own, and
# the password of the database. What is there stays as it is. Each service sees its own folder of /secrets alone.
# DTOLBUS_MORE_SINKS names further ones. Where the gateway runs elsewhere, /import has the keys that were made there.
set -eu
umask 077

for sink in parquet sqlite postgres csv jsonl ${DTOLBUS_MORE_SINKS:-}; do
    mkdir -p "/secrets/$sink"
    if [ -d /import ]; then
        key="/import/$sink.key"
        if [ ! -r "$key" ]; then
            echo "no $key to be read: on the gateway's machine \`dtolbus keys new $sink --role sink\` makes it;" \
                "on Linux it must belong to the user 10001 (chown 10001 $sink.key)" >&2
            continue
        fi
    else
        key="/data/keys/$sink.key"
        [ -e "$key" ] || dtolbus keys new "$sink" --role sink --data /data >/dev/null
        # where whoever made it was killed in between
        [ -e "/data/keys/allowed/$sink" ] || dtolbus keys allow "$sink" --role sink --data /data >/dev/null
    fi
    cp "$key" "/secrets/$sink/$sink.key"
done

if [ ! -s /secrets/postgres/dsn ]; then
    mkdir -p /secrets/database
    # the database's own user reads it, and has no part in this one's; nobody else has the folder
    chmod 755 /secrets/database
    if [ ! -s /secrets/database/password ]; then
        password=$(python3 -c 'import secrets; print(secrets.token_hex(24))')
        (umask 022 && printf %s "$password" >/secrets/database/password.new)
        sync /secrets/database/password.new
        mv /secrets/database/password.new /secrets/database/password
    fi
    printf 'postgresql://dtolbus:%s@postgres/dtolbus\n' "$(cat /secrets/database/password)" >/secrets/postgres/dsn.new
    sync /secrets/postgres/dsn.new
    mv /secrets/postgres/dsn.new /secrets/postgres/dsn
fi
echo "keys and password are there"
