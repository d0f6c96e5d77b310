# shellcheck shell=bash
# What the guest is made of: QEMU, a kernel and a root file system, from Debian's archive, all of it in $BUILD and nothing of it
# installed on this machine. Sourced by run.sh. What is there already is used again.

MIRROR=${HAECHI_QEMU_MIRROR:-http://deb.debian.org/debian}
# The guest runs what this machine built: it has this machine's release of Debian.
SUITE=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# What the kernel of the guest needs; what they need comes with them. igb and virtio_net are the drivers that udev would give the
# ports to.
MODULES_FIRST=(virtio_pci virtio_blk ext4)
MODULES=("${MODULES_FIRST[@]}" virtio_console vfio-pci vfio_iommu_type1 igb virtio_net)
QEMU=()

# apt-get or apt-cache with sources and state of our own: this machine's stay as they are.
apt_alone() {
    local tool=$1
    shift
    "$tool" -o "Dir::State::Lists=$BUILD/apt/lists" -o "Dir::Cache=$BUILD/apt/cache" \
        -o "Dir::Etc::SourceList=$BUILD/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

prepare_apt() {
    [[ ! -e $BUILD/apt/updated ]] || return 0
    mkdir -p "$BUILD"/apt/lists/partial "$BUILD"/apt/cache/archives/partial
    local key=/usr/share/keyrings/debian-archive-keyring.gpg suite
    for suite in "$SUITE" "$SUITE-backports"; do
        echo "deb [signed-by=$key] $MIRROR $suite main"
    done >"$BUILD/apt/sources.list"
    apt_alone apt-get update
    touch "$BUILD/apt/updated"
}

# QEMU with an igb (8.0 and newer): this machine's, or else one that is only unpacked. Sets QEMU, the words that it starts with.
prepare_qemu() {
    if command -v qemu-system-x86_64 >/dev/null && qemu-system-x86_64 -device igb,help >/dev/null 2>&1; then
        QEMU=(qemu-system-x86_64)
        return
    fi
    local root=$BUILD/qemu deb libraries
    if [[ ! -e $root/complete ]]; then
        prepare_apt
        # Only what this machine lacks; where QEMU is too old, that of the backports.
        rm -f "$BUILD"/apt/cache/archives/*.deb
        apt_alone apt-get install -y --reinstall --download-only --no-install-recommends -t "$SUITE-backports" \
            qemu-system-x86 qemu-system-common qemu-system-data seabios
        for deb in "$BUILD"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$root"; done
        rm -f "$BUILD"/apt/cache/archives/*.deb
        touch "$root/complete"
    fi
    libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
    QEMU=(env "LD_LIBRARY_PATH=$libraries" "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu"
        -L "$root/usr/share/seabios")
    "${QEMU[@]}" -device igb,help >/dev/null || die "no QEMU with an igb (8.0 or newer) for $SUITE"
}

# Packages with the libraries that haechi is linked with, and with the drivers of DPDK that the guest needs.
guest_packages() {
    local libraries abi driver
    libraries=$(ldd "$BINARY" | sed -n 's/.*=> \(.*librte_[^ ]*\).*/\1/p' | xargs -r realpath)
    [[ -n $libraries ]] || die "$BINARY is not linked with DPDK's libraries"
    # shellcheck disable=SC2086 # a path a word
    dpkg-query -S $libraries | sed 's/:.*//' | sort -u
    abi=$(sed -n 's/.*librte_eal\.so\.\([0-9]*\).*/\1/p' <<<"$libraries")
    for driver in net-e1000- net-virtio bus-pci bus-vdev mempool-ring; do
        # A name that ends with a digit is set off from the number behind it.
        echo "librte-$driver$abi"
    done
    printf '%s\n' systemd systemd-sysv udev kmod pciutils iproute2 busybox-static
}

# The root file system, its kernel, and the modules that it starts with: in $GUEST.
prepare_guest() {
    local packages image
    packages=$(guest_packages)
    # Another list of packages is another image.
    GUEST=$BUILD/guest-$SUITE-$(md5sum <<<"$packages ${MODULES[*]}" | head -c 8)
    [[ ! -e $GUEST/complete ]] || return 0
    rm -rf "$BUILD"/guest-*
    mkdir -p "$GUEST/kernel" "$GUEST/modules"
    # What it mounts is gone with it, also when it is interrupted.
    unshare --mount debootstrap --variant=minbase --include="$(paste -sd, <<<"$packages")" "$SUITE" "$GUEST/root" "$MIRROR"

    prepare_apt
    image=$(apt_alone apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    (cd "$GUEST" && apt_alone apt-get download "$image")
    dpkg -x "$GUEST"/linux-image-*.deb "$GUEST/kernel"
    cp "$GUEST"/kernel/boot/vmlinuz-* "$GUEST/vmlinuz"
    take_modules
    prune_root
    mke2fs -q -t ext4 -O ^has_journal -d "$GUEST/root" "$GUEST/root.ext4" 1500M
    cp "$GUEST/root/bin/busybox" "$GUEST/busybox"
    rm -rf "$GUEST/root" "$GUEST/kernel" "$GUEST"/*.deb
    touch "$GUEST/complete"
}

# The modules, and those that they need: all into the root file system, the first ones for the initrd as well.
take_modules() {
    local version from to=$GUEST/root module file
    version=$(basename "$GUEST"/kernel/lib/modules/*)
    from=$GUEST/kernel
    # Where Debian has merged /usr, the package brings /usr/lib.
    depmod -b "$from" "$version"
    for module in "${MODULES[@]}"; do
        modprobe -d "$from" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p' |
            while read -r file; do
                install -D -m 644 "$file" "$to/lib/modules/$version/${file#*"/modules/$version/"}"
                [[ " ${MODULES_FIRST[*]} " == *" $module "* ]] || continue
                cp "$file" "$GUEST/modules/"
                grep -qxF "${file##*/}" "$GUEST/modules/order" 2>/dev/null || echo "${file##*/}" >>"$GUEST/modules/order"
            done
    done
    cp "$from/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$to/lib/modules/$version/"
    depmod -b "$to" "$version"
}

# An emulated CPU is slow: the guest does nothing but run haechi.
prune_root() {
    local root=$GUEST/root unit
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer getty.target getty@tty1.service serial-getty@ttyS0.service systemd-networkd.service \
        systemd-resolved.service systemd-pstore.service systemd-update-utmp.service systemd-hwdb-update.service \
        systemd-machine-id-commit.service systemd-logind.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    echo haechi-qemu >"$root/etc/hostname"
    : >"$root/etc/fstab"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
}

# What changes with every run: $RUN/initrd, and $RUN/haechi.ext4 with haechi, its configuration and the guest's scripts.
pack_run() {
    local initrd=$RUN/initrd.d files=$RUN/haechi.d units
    mkdir -p "$initrd"/{bin,dev,proc,sys,root,modules}
    cp "$GUEST/busybox" "$initrd/bin/"
    cp "$GUEST"/modules/* "$initrd/modules/"
    cp "$HERE/guest/init" "$initrd/init"
    (cd "$initrd" && find . | "$GUEST/busybox" cpio -o -H newc) 2>/dev/null | gzip -1 >"$RUN/initrd"

    units=$files/etc/systemd/system
    mkdir -p "$units"/{sysinit,multi-user}.target.wants
    cp "$HERE"/guest/units/* "$units/"
    ln -s /etc/systemd/system/bind-ports.service "$units/sysinit.target.wants/"
    ln -s /etc/systemd/system/{agent,haechi}.service "$units/multi-user.target.wants/"
    cp "$BINARY" "$files/haechi"
    cp "$HERE"/guest/{agent,bind-ports} "$HERE/haechi.toml" "$files/"
    # Debug information takes most of a debug build.
    strip --strip-debug "$files/haechi" 2>/dev/null || true
    mke2fs -q -t ext4 -O ^has_journal -d "$files" "$RUN/haechi.ext4" "$(($(du -sm "$files" | cut -f1) * 5 / 4 + 8))M"
    rm -rf "$initrd" "$files"
}
