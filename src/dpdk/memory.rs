//! Tables in huge pages.

use std::ptr::NonNull;

use super::host;
use crate::base::slab::{Memory, MemoryError, Slab};

/// Fixed memory for tables: huge pages where `hugepages` says so, else ordinary memory with a hint for transparent huge
/// pages. It is mapped and touched at once and lives as long as the process, independent of the EAL (whose memory goes
/// with its clean-up, while a table may still be borrowed).
#[derive(Clone, Copy, Debug)]
pub struct HugePages {
    /// Take reserved huge pages (hugetlbfs); an error when too few are free.
    pub hugepages: bool,
}

impl Memory for HugePages {
    fn slab<T: Default + Copy + 'static>(&self, len: usize) -> Result<Slab<T>, MemoryError> {
        let too_large = || MemoryError(format!("a table of {len} entries does not fit the address space"));
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|&b| b <= isize::MAX as usize / 2)
            .ok_or_else(too_large)?;
        if bytes == 0 {
            return Ok(Slab::heap(len));
        }
        let memory = if self.hugepages {
            map_huge(bytes)?
        } else {
            map_ordinary(bytes)?
        };
        let start = memory.cast::<T>();
        if start.as_ptr().align_offset(align_of::<T>()) != 0 {
            return Err(MemoryError(format!(
                "a table of {} byte alignment is not possible",
                align_of::<T>()
            )));
        }
        for i in 0..len {
            // SAFETY: `len` elements fit the mapping, which is aligned for `T` and which nobody else knows. Writing them
            // also takes every page fault now.
            unsafe { start.add(i).write(T::default()) };
        }
        // SAFETY: initialised just now; the mapping is never undone, so it is good for ever, and this is its only use.
        Ok(Slab::Static(unsafe {
            std::slice::from_raw_parts_mut(start.as_ptr(), len)
        }))
    }
}

fn map(bytes: usize, flags: i32) -> Option<NonNull<u8>> {
    // SAFETY: a new private mapping; nothing that exists is touched.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(address.cast())
    }
}

/// Huge pages of the size that wastes least: the largest of which the table fills at least one, if so many are free.
fn map_huge(bytes: usize) -> Result<NonNull<u8>, MemoryError> {
    let mut sizes = host::huge_page_sizes();
    sizes.reverse();
    for size in &sizes {
        let Ok(page) = usize::try_from(size.kib * 1024) else {
            continue;
        };
        let pages = bytes.div_ceil(page);
        let smallest = sizes.last() == Some(size);
        if size.free < pages as u64 || (bytes < page && !smallest) {
            continue;
        }
        // mmap(2), MAP_HUGETLB: the page size's base-2 logarithm in the flags' upper bits. Without MAP_NORESERVE the
        // kernel reserves the pages now or refuses.
        let log2 = page.trailing_zeros() << libc::MAP_HUGE_SHIFT;
        if let Some(memory) = map(pages * page, libc::MAP_HUGETLB | log2 as i32) {
            return Ok(memory);
        }
    }
    let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    Err(MemoryError(host::too_few_huge_pages(
        mib,
        "for the session table",
    )))
}

fn map_ordinary(bytes: usize) -> Result<NonNull<u8>, MemoryError> {
    const HUGE: usize = 2 << 20;
    let mib = bytes.div_ceil(1 << 20);
    let too_little = |available: Option<u64>| {
        let available = available.map_or(String::new(), |a| format!(", {a} MiB are available"));
        MemoryError(format!(
            "a table takes {mib} MiB of memory{available}: lower max_sessions in [conntrack], or add memory"
        ))
    };
    // Touching what is not there ends the process by the kernel's hand: look first.
    let available = host::available_mib();
    if available.is_some_and(|a| a < mib as u64) {
        return Err(too_little(available));
    }
    // Room to start at a huge page's boundary, so that transparent huge pages can back all of it.
    let whole = bytes.next_multiple_of(4096) + if bytes >= HUGE { HUGE } else { 0 };
    let memory = map(whole, 0).ok_or_else(|| too_little(available))?;
    if bytes < HUGE {
        return Ok(memory);
    }
    let skip = memory.as_ptr().align_offset(HUGE);
    // SAFETY: `skip` is below `HUGE`, so that `bytes` more are within the mapping; the advice covers part of it.
    unsafe {
        let start = memory.add(skip);
        libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        Ok(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_default_aligned_and_writable() {
        #[repr(align(64))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        struct Line([u64; 8]);
        impl Default for Line {
            fn default() -> Self {
                Self([7; 8])
            }
        }
        for len in [0, 1, 1000, 70_000] {
            let mut table = HugePages { hugepages: false }.slab::<Line>(len).unwrap();
            assert_eq!(table.len(), len);
            assert!(table.iter().all(|l| *l == Line([7; 8])));
            table.iter_mut().for_each(|l| l.0[3] = 9);
            assert!(table.iter().all(|l| l.0[3] == 9));
        }
    }

    #[test]
    fn too_much_is_refused_with_the_fix() {
        let whole_host = (host::available_mib().unwrap() as usize + 1024) << 20;
        let Err(why) = (HugePages { hugepages: false }).slab::<u8>(whole_host) else {
            panic!("no host has that")
        };
        assert!(why.to_string().contains("lower max_sessions"), "{why}");
        let Err(why) = (HugePages { hugepages: true }).slab::<u8>(1 << 46) else {
            panic!("no host has that")
        };
        assert!(why.to_string().contains("hugepages = false"), "{why}");
        let Err(why) = (HugePages { hugepages: true }).slab::<u64>(usize::MAX / 4) else {
            panic!("no host has that")
        };
        assert!(why.to_string().contains("address space"), "{why}");
    }
}
