#!/bin/sh
# The roles of a deployment, made once on an empty PostgreSQL server: `textmill_owner` owns the tables and is used by
# `textmill db upgrade` alone; `textmill`, which producers, workers and upkeep use, may read and write rows, no more.
# Connects as the superuser, by PGHOST, PGPORT, PGUSER or as the postgres image does.
set -eu
secrets="${SECRETS:-/run/secrets}"

psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --no-psqlrc --quiet -v ON_ERROR_STOP=1 \
    -v owner="$(cat "$secrets/owner_password")" -v textmill="$(cat "$secrets/textmill_password")" <<'SQL'
CREATE ROLE textmill_owner LOGIN PASSWORD :'owner';
CREATE ROLE textmill LOGIN PASSWORD :'textmill';
CREATE DATABASE textmill OWNER textmill_owner;
\connect textmill
REVOKE ALL ON DATABASE textmill FROM PUBLIC;
GRANT CONNECT ON DATABASE textmill TO textmill;
GRANT USAGE ON SCHEMA public TO textmill;
ALTER DEFAULT PRIVILEGES FOR ROLE textmill_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO textmill;
ALTER DEFAULT PRIVILEGES FOR ROLE textmill_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO textmill;
SQL
