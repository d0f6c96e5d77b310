//! Does this CPU have what the program was compiled for? Asked once, before anything else.

/// The features that this build uses where x86-64's baseline has them not, by their names in `/proc/cpuinfo`.
const COMPILED_FOR: &[(&str, bool)] = &[
    ("aes", cfg!(target_feature = "aes")),
    ("avx", cfg!(target_feature = "avx")),
    ("avx2", cfg!(target_feature = "avx2")),
    ("avx512f", cfg!(target_feature = "avx512f")),
    ("abm", cfg!(target_feature = "lzcnt")),
    ("bmi1", cfg!(target_feature = "bmi1")),
    ("bmi2", cfg!(target_feature = "bmi2")),
    ("f16c", cfg!(target_feature = "f16c")),
    ("fma", cfg!(target_feature = "fma")),
    ("movbe", cfg!(target_feature = "movbe")),
];

/// Says in one line what the CPU lacks of what this build uses (see `.cargo/config.toml`).
///
/// # Errors
/// That line, with the fix. A host whose kernel does not tell its CPU's features gets none.
pub fn check() -> Result<(), String> {
    match std::fs::read_to_string("/proc/cpuinfo") {
        Ok(text) => check_flags(&text),
        Err(_) => Ok(()),
    }
}

/// The flags of the first CPU in the text of `/proc/cpuinfo`; none where it does not tell them.
pub fn flags(cpuinfo: &str) -> impl Iterator<Item = &str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags = line
        .and_then(|line| line.split_once(':'))
        .map_or("", |(_, flags)| flags);
    flags.split_ascii_whitespace()
}

/// What this build uses and a CPU with these flags does not have; nothing where no flags are told.
#[must_use]
pub fn missing(cpuinfo: &str) -> Vec<&'static str> {
    if flags(cpuinfo).next().is_none() {
        return Vec::new();
    }
    let used = COMPILED_FOR.iter().filter(|(_, used)| *used);
    used.map(|(name, _)| *name)
        .filter(|name| flags(cpuinfo).all(|flag| flag != *name))
        .collect()
}

fn check_flags(cpuinfo: &str) -> Result<(), String> {
    let missing = missing(cpuinfo);
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this CPU has no {}, which this build uses; build on this machine with RUSTFLAGS=\"-C target-cpu=native\"",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_that_runs_the_tests_is_fit() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_cpu_of_the_baseline_is_refused_by_name() {
        let answer = check_flags("processor : 0\nflags\t\t: fpu sse sse2 bmi1\n");
        let used: Vec<_> = COMPILED_FOR.iter().filter(|f| f.1 && f.0 != "bmi1").collect();
        match answer {
            Ok(()) => assert!(used.is_empty()),
            Err(line) => {
                assert!(used.iter().all(|f| line.contains(f.0)), "{line}");
                assert!(!line.contains("bmi1"), "{line}");
            }
        }
    }
}
