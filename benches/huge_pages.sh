# Huge pages for a run of a script. Others may want some at the same time, so they are added to what is there, and as many
# are taken away at the end. To be sourced.
# shellcheck shell=bash

huge_pages_file=/sys/kernel/mm/hugepages/hugepages-2048kB
huge_pages_added=0

# add_huge_pages MIB: at least so much is free afterwards, or 1 is returned.
add_huge_pages() {
    local wanted=$((($1 + 1) / 2)) free total
    free=$(cat "$huge_pages_file"/free_hugepages)
    ((free < wanted)) || return 0
    total=$(cat "$huge_pages_file"/nr_hugepages)
    echo $((total + wanted - free)) >"$huge_pages_file"/nr_hugepages
    # The kernel gives what it has.
    huge_pages_added=$(($(cat "$huge_pages_file"/nr_hugepages) - total))
    free=$(cat "$huge_pages_file"/free_hugepages)
    if ((free < wanted)); then
        echo "$wanted huge pages of 2 MiB are needed and $free are free" >&2
        return 1
    fi
}

remove_huge_pages() {
    ((huge_pages_added > 0)) || return 0
    echo $(($(cat "$huge_pages_file"/nr_hugepages) - huge_pages_added)) >"$huge_pages_file"/nr_hugepages
    huge_pages_added=0
}
