#!/usr/bin/env bash
# Sourced by deploy/local/bench: a column is added on 64 shards under load, by `hc-admin migrate up`.
# shellcheck disable=SC2154 # what bench sets

bench_migrate() {
    local shards=${HC_BENCH_FLEET:-64} rate=${HC_BENCH_MIGRATE_RATE:-60}
    positive HC_BENCH_FLEET "$shards"
    positive HC_BENCH_MIGRATE_RATE "$rate"
    ((shards <= 99)) || fail "HC_BENCH_FLEET is $shards, at most 99"
    "$HC_ROOT/deploy/local/down" >&2
    (
        # A platform of its own: the other benchmarks have two shards.
        local state=$HC_STATE/fleet
        export HC_STATE=$state HC_SHARDS=$shards HC_SHARD_SERVERS=2
        trap '"$HC_ROOT/deploy/local/down" >&2' EXIT
        "$HC_ROOT/deploy/local/up" --detach >&2
        migrate_fleet "$state" "$shards" "$rate"
    )
    "$HC_ROOT/deploy/local/up" --detach >&2
}

migrate_fleet() {
    local state=$1 shards=$2 rate=$3 fleet=$1/bench number name version
    mkdir -p "$fleet"
    admin tier apply --file "$scratch/tiers.json" >&2
    for ((number = 1; number <= shards; number++)); do
        name=$(printf 'fleet%02d' "$number")
        [[ ! -s $fleet/$name.json ]] || continue
        admin tenant create "$name" --name "$name" --tier custom --shard "s$number" --json >"$fleet/$name.owner"
        chmod 0600 "$fleet/$name.owner"
        admin demo seed "$name" --patients 100 --days 2 >&2
        mv "$fleet/$name.owner" "$fleet/$name.json"
    done
    rm -rf "$fleet/migrations"
    cp -r "$HC_ROOT/migrations" "$fleet/migrations"
    version=$(find "$fleet/migrations/shard" -mindepth 1 -maxdepth 1 -type d | wc -l)
    name=$fleet/migrations/shard/$(printf '%04d' $((version + 1)))-bench
    mkdir "$name"
    echo 'ALTER TABLE patient DROP COLUMN bench;' >"$name/down.sql"
    echo
    echo "== a column is added on $shards shards under load"
    python3 "$HC_ROOT/deploy/local/benchmarks/migrate_clients.py" \
        "$HC_PORT" "$state" "$shards" "$rate" "$HC_ROOT/deploy/local/hc-admin"
}
