# shellcheck shell=bash
# What the scripts of deploy/local share. Sourced, never run.

set -euo pipefail

# The top of the repository.
# shellcheck disable=SC2034 # for those who source this
HC_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Seconds to wait for a program to start or to stop.
HC_PATIENCE=60

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "${0##*/}: $*"
    exit 1
}

# A positive decimal number: positive NAME VALUE
positive() {
    [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || fail "$1 is '$2', it must be a positive number"
}

# Whether process $1 runs with the working directory $2: a process id alone may have been reused.
is_process() {
    [[ $1 =~ ^[0-9]+$ && $(readlink "/proc/$1/cwd" 2>/dev/null) == "$2" ]]
}

# Sends a signal to a process and waits until it is gone: end PID SIGNAL DIRECTORY
end() {
    local deadline=$((SECONDS + HC_PATIENCE))
    kill "-$2" "$1" 2>/dev/null || true
    while is_process "$1" "$3"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.02
    done
}

# 24 random bytes in hexadecimal.
secret() { od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'; }

# Writes standard input to the file $1 with mode 0600, at once or not at all.
write_private() {
    local temporary
    temporary=$(mktemp "$1.XXXXXX")
    cat >"$temporary"
    chmod 0600 "$temporary"
    mv -f "$temporary" "$1"
}

# The directory of PostgreSQL's programs, newest version first, 15 or later; of version $1 if given.
# shellcheck disable=SC2120 # the argument is optional
postgres_bin() {
    local candidate version
    for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        version=${candidate#/usr/lib/postgresql/}
        version=${version%/bin}
        [[ $version =~ ^[0-9]+$ && -x $candidate/postgres && -x $candidate/initdb ]] || continue
        ((version >= 15)) || continue
        [[ -z ${1:-} || $version == "$1" ]] || continue
        printf '%s\n' "$candidate"
        return 0
    done
    return 1
}

# Packages that the services need.
# shellcheck disable=SC2119
service_packages() {
    postgres_bin >/dev/null || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
}

# Packages that building and running HC need.
build_packages() {
    printf '%s\n' libpq-dev libhiredis-dev libssl-dev libnghttp2-dev zlib1g-dev libbrotli-dev \
        libcurl4-openssl-dev pkg-config curl openssl ca-certificates tzdata
}

# Packages that the tests need besides: the load client, and clients that are not of our making.
test_packages() { printf '%s\n' python3 python3-h2 python3-websockets nghttp2-client chromium-headless-shell pgbouncer elfutils procps; }

# Installs what is missing of the named packages: as root, or through sudo. Otherwise says what to type.
require_packages() {
    local package missing=() become=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == 'install ok installed' ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "missing packages: ${missing[*]}"
    if ((EUID)); then
        if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
            become=(sudo)
        else
            say "install them with: apt-get install --no-install-recommends ${missing[*]}"
            exit 1
        fi
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
    if ! "${become[@]}" "${install[@]}" "${missing[@]}" >&2; then
        "${become[@]}" apt-get update -qq >&2
        "${become[@]}" "${install[@]}" "${missing[@]}" >&2
    fi
}

require_swift() {
    command -v swift >/dev/null ||
        fail "no 'swift' in PATH: install the Swift 6.3 toolchain (https://swift.org/install)"
}

# Starts services for this script alone, in a new directory: sets held_directory. They hang on the pipe
# that is descriptor 7 and end with the script, however it ends; other programs must not inherit it.
hold_services() {
    local answer=
    held_directory=$(mktemp -d /tmp/hc-test-XXXXXX)
    # The user of the services must pass through.
    chmod 0711 "$held_directory"
    mkfifo "$held_directory/answer"
    exec 7> >(exec "$HC_ROOT/deploy/local/services" hold "$held_directory" --fsync off >"$held_directory/answer")
    held_process=$!
    read -r answer <"$held_directory/answer" || true
    rm -f "$held_directory/answer"
    [[ $answer == ready ]] || fail "PostgreSQL and Redis did not start"
}

# Ends them now.
release_services() {
    exec 7>&-
    wait "$held_process" || true
}

# Sets state: where everything of the local installation is (HC_STATE, relative to the repository).
find_state() {
    # shellcheck disable=SC2034 # for those who source this
    case ${HC_STATE:-.local} in
        /*) state=$HC_STATE ;;
        *) state=$HC_ROOT/${HC_STATE:-.local} ;;
    esac
}

# The process id of the server of the local installation, empty if it does not run.
server_pid() {
    local pid=
    [[ ! -e $state/server/pid ]] || read -r pid <"$state/server/pid" || true
    ! is_process "$pid" "$state/server" || echo "$pid"
}

# The process id of the agent that carries moves on, empty if it does not run.
agent_pid() {
    local pid=
    [[ ! -e $state/agent/pid ]] || read -r pid <"$state/agent/pid" || true
    ! is_process "$pid" "$state/agent" || echo "$pid"
}

# It may be ended at any time: what it does is written down.
stop_agent() {
    local pid
    pid=$(agent_pid)
    [[ -z $pid ]] || end "$pid" TERM "$state/agent" || end "$pid" KILL "$state/agent" ||
        fail "the agent of moves (process $pid) does not end"
    rm -f "$state/agent/pid"
}

# Lets the server finish its requests, and ends it.
stop_server() {
    local pid
    pid=$(server_pid)
    if [[ -n $pid ]]; then
        end "$pid" TERM "$state/server" || end "$pid" KILL "$state/server" ||
            fail "the server (process $pid) does not end"
    fi
    rm -f "$state/server/pid"
}

# A string as JSON, without its quotes.
json_escaped() {
    local text=${1//\\/\\\\}
    printf '%s' "${text//\"/\\\"}"
}

# Makes a self-signed certificate for the base domain in the state directory $1, unless there is one that is good
# for another 30 days. The demo clinics are named too, for not every client takes a wildcard with one dot.
make_certificate() {
    local domain=${HC_BASE_DOMAIN:-localhost} directory=$1/secrets/tls names
    mkdir -p "$directory"
    ! is_good_certificate "$directory/local" "$domain" || return 0
    names="DNS:$domain,DNS:*.$domain,DNS:sunrise.$domain,DNS:lakeside.$domain"
    [[ $domain == localhost ]] || names+=,DNS:localhost
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -sha256 -nodes -days 365 \
        -subj "/CN=HC local" -addext "subjectAltName=$names,IP:127.0.0.1" -addext basicConstraints=critical,CA:FALSE \
        -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth \
        -keyout "$directory/.new.key" -out "$directory/.new.crt" 2>"$directory/.log" || {
        cat "$directory/.log" >&2
        fail "the certificate was not made"
    }
    chmod 0600 "$directory/.new.key"
    mv -f "$directory/.new.key" "$directory/local.key"
    mv -f "$directory/.new.crt" "$directory/local.crt"
}

# Whether $1.crt and $1.key are there, belong together, name *.$2 and last another 30 days.
is_good_certificate() {
    [[ -s $1.crt && -s $1.key ]] &&
        openssl x509 -in "$1.crt" -noout -checkend 2592000 >/dev/null 2>&1 &&
        [[ $(openssl x509 -in "$1.crt" -noout -ext subjectAltName 2>/dev/null) == *"DNS:*.$2,"* ]] &&
        [[ $(openssl x509 -in "$1.crt" -noout -pubkey 2>/dev/null) == "$(openssl pkey -in "$1.key" -pubout 2>/dev/null)" ]]
}

# Writes hc.json for services that run in the state directory $1, and the keys it names.
# A key that exists is never replaced: what it has sealed would be lost.
write_configuration() {
    local directory=$1 key
    for key in master token tickets; do
        [[ -s $directory/secrets/$key.key ]] || openssl rand -hex 32 | write_private "$directory/secrets/$key.key"
    done
    directory=$(json_escaped "$directory")
    write_private "$1/hc.json" <<-END
		{
		  "profile": "local",
		  "conformance": $([[ ${HC_CONFORMANCE:-0} == 1 ]] && echo true || echo false),
		  "baseDomain": "$(json_escaped "${HC_BASE_DOMAIN:-localhost}")",
		  "publicURL": "http://127.0.0.1:${HC_PORT:-8080}",
		  "stateDirectory": "$directory",
		  "secretsDirectory": "$directory/secrets",
		  "migrationsDirectory": "$(json_escaped "$HC_ROOT/migrations")",
		  "tenantsDirectory": "$(json_escaped "$HC_ROOT/tenants")",
		  "masterKeyFile": "$directory/secrets/master.key",
		  "tokenKeyFile": "$directory/secrets/token.key",
		  "redis": {
		    "socket": "$(json_escaped "$(<"$1/secrets/redis.socket")")",
		    "passwordFile": "$directory/secrets/redis.password"
		  },
		  "server": {
		    "bindAddress": "127.0.0.1",
		    "port": ${HC_PORT:-8080},
		    "tlsPort": ${HC_TLS_PORT:-8443},
		    "opsPort": ${HC_OPS_PORT:-9464},
		    "workers": ${HC_WORKERS:-0}
		  },
		  "tls": {
		    "certificatesDirectory": "$directory/secrets/tls",
		    "ticketKeyFile": "$directory/secrets/tickets.key"
		  }
		}
	END
}
