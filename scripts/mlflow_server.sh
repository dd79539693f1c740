#!/usr/bin/env bash
# An MLflow server for many hosts: runs in PostgreSQL, their files in a folder, one user with a password.
#
#   scripts/mlflow_server.sh FOLDER [PORT=5000] [NAME]
#
# NAME is the one by which other hosts reach this one; without it only this host can. FOLDER gets all of it: database/,
# artifacts/, and uri, which its owner alone can read: export MLFLOW_TRACKING_URI="$(cat FOLDER/uri)".
# Given again, it goes on with what FOLDER holds. It runs until it is stopped (Ctrl-C, SIGTERM), with its database.
#
# Needs PostgreSQL (apt-get install postgresql) and `make install EXTRAS=server`; $PYTHON, where that is not .venv's.
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
folder=$(realpath -m "${1:?the folder that holds everything}") port=${2:-5000} name=${3:-localhost}
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
bin=${bin:-$(dirname "$(command -v pg_ctl || { echo "PostgreSQL is not installed" >&2; exit 2; })")}
data=$folder/database database_port=$((port + 1))
as=()
mkdir -p "$folder/artifacts"
if [ "$(id -u)" = 0 ]; then  # PostgreSQL refuses root
  as=(setpriv --reuid postgres --regid postgres --init-groups)
  chmod 711 "$folder"
fi

secret() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

if [ ! -e "$folder/uri" ]; then
  rm -rf "$data"  # of a first start that was not finished
  mkdir "$data"
  [ ${#as[@]} = 0 ] || chown postgres "$data"
  secret > "$folder/database_password"
  secret > "$folder/session_secret"
  password=$(secret)
  cp "$folder/database_password" "$folder/given"
  [ ${#as[@]} = 0 ] || chown postgres "$folder/given"
  (cd / && "${as[@]}" "$bin/initdb" -D "$data" -U mlflow -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
    --pwfile="$folder/given") > "$folder/initdb.log"
  rm "$folder/given"
  printf '[mlflow]\ndefault_permission = MANAGE\nadmin_username = mlflow\nadmin_password = %s\n' "$password" > "$folder/auth.ini"
  printf 'database_uri = postgresql+psycopg2://mlflow:%s@127.0.0.1:%s/users\nauth_cache_ttl_seconds = 60\n' \
    "$(cat "$folder/database_password")" "$database_port" >> "$folder/auth.ini"
  printf 'http://mlflow:%s@%s:%s\n' "$password" "$name" "$port" > "$folder/uri.draft"
fi
PGPASSWORD=$(cat "$folder/database_password")
export PGPASSWORD
# The log is the database's own file: the server's user need not be able to write into FOLDER.
(cd / && "${as[@]}" "$bin/pg_ctl" -D "$data" -l "$data/log" -w -t 60 start \
  -o "-p $database_port -c listen_addresses=127.0.0.1 -c unix_socket_directories=''") > /dev/null
server=
stop() {
  trap - EXIT INT TERM
  [ -z "$server" ] || { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; } || true
  (cd / && "${as[@]}" "$bin/pg_ctl" -D "$data" -m fast stop) > /dev/null || true
}
trap stop EXIT
trap 'exit 0' INT TERM
if [ -e "$folder/uri.draft" ]; then
  for database in runs users; do
    "$bin/createdb" -h 127.0.0.1 -p "$database_port" -U mlflow "$database"
  done
  mv "$folder/uri.draft" "$folder/uri"
fi
listen=127.0.0.1
[ "$name" = localhost ] || listen=0.0.0.0
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://mlflow:$PGPASSWORD@127.0.0.1:$database_port/runs"
export MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini MLFLOW_DISABLE_TELEMETRY=true
MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$folder/session_secret")
export MLFLOW_FLASK_SERVER_SECRET_KEY
unset MLFLOW_TRACKING_URI PGPASSWORD
cd "$folder"
"$python" -m mlflow server --app-name basic-auth --host "$listen" --port "$port" --workers 2 \
  --allowed-hosts "localhost:*,127.0.0.1:*,$name:*" --artifacts-destination "$folder/artifacts" >> "$folder/log" 2>&1 &
server=$!
echo "MLflow at http://$name:$port; its login: $folder/uri; its log: $folder/log"
wait "$server"
