# shellcheck shell=bash
# What the scripts of deploy/local share. Sourced, never run.

set -euo pipefail

# The top of the repository.
# shellcheck disable=SC2034 # for those who source this
HC_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "${0##*/}: $*"
    exit 1
}

# A positive decimal number: positive NAME VALUE
positive() {
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 is '$2', it must be a positive number"
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
