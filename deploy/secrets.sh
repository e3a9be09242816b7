#!/bin/sh
# Writes random passwords for docker-compose.yml into deploy/secrets/, once; existing ones are kept.
# The folder is closed to other users of this machine; the files are readable, because containers run as users of
# their own.
set -eu
folder="$(dirname "$0")/secrets"
[ -e "$folder/owner_url" ] && { echo "$folder is filled already"; exit 0; }
[ -e "$folder/redis_url" ] && {
    echo "$folder was filled by an older version; deploy/postgres-roles.sh says which roles and files are new" >&2
    exit 1
}
mkdir -p "$folder"
chmod 700 "$folder"

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
owner=$(password)
textmill=$(password)
redis=$(password)

password > "$folder/postgres_password"
printf '%s' "$owner" > "$folder/owner_password"
printf '%s' "$textmill" > "$folder/textmill_password"
printf 'postgresql://textmill_owner:%s@postgres:5432/textmill' "$owner" > "$folder/owner_url"
printf 'postgresql://textmill:%s@postgres:5432/textmill' "$textmill" > "$folder/database_url"
# Whoever has not logged in may ask PING, for the health check. textmill may touch its own keys only, and none of the
# commands that manage or empty the server; Celery asks INFO for the version and CLIENT for its connections.
{
    echo "user default on nopass resetkeys resetchannels -@all +ping"
    echo "user textmill on >$redis ~textmill:* &* +@all -@admin -@dangerous +info +client"
} > "$folder/redis_acl"
printf 'redis://textmill:%s@redis:6379/0' "$redis" > "$folder/redis_url"
chmod 644 "$folder"/*
echo "wrote $folder"
