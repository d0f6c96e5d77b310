//! Huge pages for a test that is about them: reserved where they are missing, and given back.
#![allow(unreachable_pub, reason = "a module shared by test binaries has no outside")]

const DIRECTORY: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// So many pages of 2 MiB are free. Those that were added for it go with the value.
pub struct FreeHugePages {
    added: u64,
}

impl FreeHugePages {
    /// Makes `needed` pages free.
    ///
    /// # Panics
    /// When they cannot be had: a test of huge pages that has none would prove nothing.
    #[must_use]
    pub fn reserve(needed: u64) -> Self {
        let (before, missing) = (number("nr_hugepages"), needed.saturating_sub(free()));
        if missing > 0 {
            set(before + missing);
        }
        let pages = Self {
            added: number("nr_hugepages").saturating_sub(before),
        };
        let free = free();
        assert!(
            free >= needed,
            "this test needs {needed} huge pages of 2 MiB, {free} are free and the kernel finds no memory for more: \
             end other programs, or boot with hugepages={}",
            before + missing
        );
        pages
    }
}

impl Drop for FreeHugePages {
    fn drop(&mut self) {
        if self.added > 0 {
            set(number("nr_hugepages").saturating_sub(self.added));
        }
    }
}

/// Those that nobody has a claim to.
fn free() -> u64 {
    number("free_hugepages").saturating_sub(number("resv_hugepages"))
}

fn number(name: &str) -> u64 {
    let path = format!("{DIRECTORY}/{name}");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{path}: {e}: this test needs a kernel with huge pages of 2 MiB"));
    text.trim().parse().unwrap()
}

fn set(pages: u64) {
    let path = format!("{DIRECTORY}/nr_hugepages");
    std::fs::write(&path, pages.to_string()).unwrap_or_else(|e| panic!("{path}: {e}: run the test as root"));
}
