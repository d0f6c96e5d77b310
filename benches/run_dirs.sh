# What DPDK's own programs leave in their runtime directory. Every run of a script has a prefix there that begins with the
# script's name and process. (haechi removes its own.) To be sourced.
# shellcheck shell=bash

# remove_run_dirs PREFIX: those of this run.
remove_run_dirs() {
    rm -rf /var/run/dpdk/"$1" /var/run/dpdk/"$1"-*
}

# sweep_run_dirs NAME: those of runs that were killed before they could remove theirs.
sweep_run_dirs() {
    local left process
    for left in /var/run/dpdk/"$1"-*; do
        process=${left##*/"$1"-}
        process=${process%%-*}
        if [[ $process =~ ^[0-9]+$ && ! -e /proc/$process ]]; then rm -rf "$left"; fi
    done
}
