#!/bin/sh
# Writes random passwords for docker-compose.yml into deploy/secrets/, once; existing ones are kept.
# The folder is closed to other users of this machine; the files are readable, because containers run as users of
# their own.
set -eu
folder="$(dirname "$0")/secrets"
[ -e "$folder/redis_url" ] && { echo "$folder is filled already"; exit 0; }
mkdir -p "$folder"
chmod 700 "$folder"

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
postgres=$(password)
redis=$(password)

printf '%s' "$postgres" > "$folder/postgres_password"
printf 'postgresql://textmill:%s@postgres:5432/textmill' "$postgres" > "$folder/database_url"
# Whoever has not logged in may ask PING, for the health check. textmill may touch its own keys only, and none of the
# commands that manage or empty the server; Celery asks INFO for the version and CLIENT for its connections.
{
    echo "user default on nopass resetkeys resetchannels -@all +ping"
    echo "user textmill on >$redis ~textmill:* &* +@all -@admin -@dangerous +info +client"
} > "$folder/redis_acl"
printf 'redis://textmill:%s@redis:6379/0' "$redis" > "$folder/redis_url"
chmod 644 "$folder"/*
echo "wrote $folder"
