//! Bindings to libdpdk (feature `dpdk`): pkg-config finds it, bindgen reads `src/dpdk/shim.h`, cc compiles the shim.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    if let Err(why) = dpdk::build() {
        println!("cargo::error={why}");
        std::process::exit(1);
    }
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::{env, path::PathBuf};

    /// The oldest libdpdk that the shim compiles against.
    const OLDEST: &str = "22.11";

    pub(crate) fn build() -> Result<(), String> {
        for file in ["src/dpdk/shim.h", "src/dpdk/shim.c"] {
            println!("cargo::rerun-if-changed={file}");
        }
        let cflags = cflags()?;
        bindings(&cflags)?;
        shim(&cflags)
    }

    /// Finds libdpdk and tells cargo to link it (`--as-needed`, so only what is used); returns all of its C flags.
    /// The `pkg-config` crate parses `-I` and `-D` alone, but DPDK's headers also need `-include` and `-march`, so those
    /// come from the tool itself.
    fn cflags() -> Result<Vec<String>, String> {
        let missing = |why: String| {
            format!(
                "libdpdk {OLDEST} or newer was not found: install the packages libdpdk-dev, libclang-dev, clang and \
                 pkg-config (Debian, Ubuntu), or build with --no-default-features, without the data plane. {}",
                why.lines()
                    .map(str::trim)
                    .filter(|l| !l.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        };
        pkg_config::Config::new()
            .atleast_version(OLDEST)
            .cargo_metadata(false)
            .probe("libdpdk")
            .map_err(|e| missing(e.to_string()))?;
        // Plain -l and -L flags are enough: the poll-mode drivers are plug-ins that the EAL loads by itself. Only
        // the libraries that the shim and the bindings call are linked.
        for library in [
            "rte_eal",
            "rte_ethdev",
            "rte_mbuf",
            "rte_mempool",
            "rte_ring",
            "rte_acl",
            "rte_log",
        ] {
            if library != "rte_log" || has_library(library) {
                println!("cargo::rustc-link-lib=dylib={library}");
            }
        }
        for flag in pkg_config_flags("--libs-only-L")? {
            println!(
                "cargo::rustc-link-search=native={}",
                flag.trim_start_matches("-L")
            );
        }
        pkg_config_flags("--cflags")
    }

    /// librte_log is a library of its own from 24.03 on.
    fn has_library(library: &str) -> bool {
        pkg_config_flags("--libs").is_ok_and(|flags| flags.contains(&format!("-l{library}")))
    }

    fn pkg_config_flags(kind: &str) -> Result<Vec<String>, String> {
        let tool = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        let output = std::process::Command::new(tool)
            .args([kind, "libdpdk"])
            .output()
            .map_err(|e| format!("pkg-config {kind} libdpdk: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "pkg-config {kind} libdpdk: {}",
                String::from_utf8_lossy(&output.stderr).replace('\n', " ")
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .map(str::to_owned)
            .collect())
    }

    fn bindings(cflags: &[String]) -> Result<(), String> {
        let bindings = bindgen::Builder::default()
            .header("src/dpdk/shim.h")
            .clang_args(cflags)
            .allowlist_function("hx_.*")
            .allowlist_var("HX_.*")
            .allowlist_type("hx_.*")
            .allowlist_function("rte_eal_(init|cleanup|get_runtime_dir)")
            .allowlist_function("rte_(thread_register|thread_unregister|lcore_id|get_tsc_hz|strerror)")
            .allowlist_function("rte_(dev_probe|dev_remove|log_set_global_level|openlog_stream)")
            .allowlist_function("rte_malloc_get_socket_stats")
            .allowlist_function("rte_eth_dev_(info_get|socket_id|set_mtu|start|stop|close|set_link_(up|down))")
            .allowlist_function("rte_eth_dev_(adjust_nb_rx_tx_desc|callback_(register|unregister))")
            .allowlist_function("rte_eth_(rx|tx)_queue_setup")
            .allowlist_function("rte_eth_dev_rx_intr_(enable|disable|ctl_q_get_fd)")
            .allowlist_function("rte_eth_(macaddr_get|stats_get|tx_done_cleanup)")
            .allowlist_function("rte_eth_(promiscuous|allmulticast)_(enable|disable)")
            .allowlist_function("rte_pktmbuf_(pool_create|free_bulk)")
            .allowlist_function("rte_acl_(create|free|add_rules|build|classify)")
            .allowlist_var("RTE_(ACL_.*|MAX_NUMA_NODES)")
            .allowlist_type("rte_acl_(field|rule_data)")
            .allowlist_function("rte_mempool_(in_use_count|calc_obj_size|obj_iter|walk)")
            // Packed and aligned at once, or full of flexible members: nothing here looks into them.
            .opaque_type("rte_(arp|l2tpv2|gtp|geneve|mpls)_.*")
            .opaque_type(
                "_IO_FILE|rte_(acl_rule|mbuf|mempool|ring|device|mempool_memhdr|eth_(switch_info|dev_portconf|rxseg_capa))",
            )
            .blocklist_type("_IO_.*__.*|rte_(mbuf|mempool)_(_bindgen_.*|sched)")
            .layout_tests(false)
            .merge_extern_blocks(true)
            .derive_default(false)
            .derive_debug(false)
            .generate_comments(false)
            .prepend_enum_name(false)
            .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|e| e.to_string())?)
            .rust_edition(bindgen::RustEdition::Edition2024)
            .generate()
            .map_err(|e| {
                format!("bindgen cannot read DPDK's headers (are clang and libclang-dev installed?): {e}")
            })?;
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("dpdk.rs");
        bindings
            .write_to_file(&out)
            .map_err(|e| format!("{}: {e}", out.display()))
    }

    fn shim(cflags: &[String]) -> Result<(), String> {
        let mut build = cc::Build::new();
        build
            .file("src/dpdk/shim.c")
            .warnings(true)
            .extra_warnings(true)
            .opt_level(3)
            .std("gnu11");
        for flag in cflags {
            build.flag(flag);
        }
        for flag in ["-Werror=implicit-function-declaration", "-Werror=int-conversion"] {
            build.flag_if_supported(flag);
        }
        // DPDK's own inline functions are not clean under -Wextra with every compiler.
        for flag in ["-Wno-unused-parameter", "-Wno-missing-field-initializers"] {
            build.flag_if_supported(flag);
        }
        build
            .try_compile("haechi_dpdk_shim")
            .map_err(|e| format!("the DPDK shim does not compile: {e}"))
    }
}
